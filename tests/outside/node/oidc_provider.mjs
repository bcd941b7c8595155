// A certified authorization server of others (oidc-provider), configured for FAPI 2.0 with the clients of a sandbox.
//
//   node oidc_provider.mjs DIR PORT
//
// It asks no customer: whoever arrives has consented. Prints "ready" once it listens; ends with its standard input.
import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto'
import fs from 'node:fs'
import https from 'node:https'
import Provider from 'oidc-provider'

const [folder, port] = process.argv.slice(2)
const read = (name) => fs.readFileSync(`${folder}/${name}`)
const manifest = JSON.parse(read('sandbox.json'))
const issuer = `https://localhost:${port}`
const algs = ['PS256', 'ES256', 'EdDSA']
const RESOURCE = 'https://resource.example'
const TYPE = 'urn:openfinanceuae:account-access-consent:v2.1'

const clientOf = (tpp) => ({
  client_id: tpp.client_id,
  redirect_uris: tpp.redirect_uris,
  grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
  response_types: ['code'],
  scope: 'openid accounts',
  token_endpoint_auth_method: 'private_key_jwt',
  token_endpoint_auth_signing_alg: 'PS256',
  request_object_signing_alg: 'PS256',
  id_token_signed_response_alg: 'PS256',
  tls_client_certificate_bound_access_tokens: true,
  authorization_details_types: [TYPE],
  jwks: {
    keys: [
      {
        ...createPublicKey(createPrivateKey(read(tpp.signing_key))).export({ format: 'jwk' }),
        kid: tpp.signing_kid,
        use: 'sig',
      },
    ],
  },
})

const own = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
const provider = new Provider(issuer, {
  clients: manifest.tpps.map(clientOf),
  jwks: { keys: [{ ...own.export({ format: 'jwk' }), kid: 'oracle', use: 'sig', alg: 'PS256' }] },
  scopes: ['openid', 'accounts'],
  enabledJWA: {
    requestObjectSigningAlgValues: algs,
    clientAuthSigningAlgValues: algs,
    idTokenSigningAlgValues: ['PS256'],
    dPoPSigningAlgValues: algs,
  },
  clientAuthMethods: ['private_key_jwt'],
  pkce: { required: () => true },
  issueRefreshToken: () => true,
  rotateRefreshToken: false,
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  cookies: { keys: ['oracle'] },
  ttl: { AuthorizationCode: 60, AccessToken: 600, RefreshToken: 86400, Grant: 86400, Session: 600, Interaction: 600, ClientCredentials: 600 },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    pushedAuthorizationRequests: { enabled: true, requirePushedAuthorizationRequests: true },
    requestObjects: { enabled: true, requireSignedRequestObject: true },
    fapi: { enabled: true, profile: '2.0' },
    dPoP: { enabled: true, nonceSecret: Buffer.alloc(32), requireNonce: () => false },
    mTLS: {
      enabled: true,
      certificateBoundAccessTokens: true,
      getCertificate: (ctx) => ctx.socket.getPeerX509Certificate?.(),
    },
    introspection: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => RESOURCE,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: 'openid accounts',
        audience: RESOURCE,
        accessTokenFormat: 'opaque',
      }),
    },
    claimsParameter: { enabled: true },
    richAuthorizationRequests: {
      enabled: true,
      types: { [TYPE]: { validate: () => {} } },
      authorizationDetailsForGrantSource: (ctx) => JSON.parse(ctx.oidc.params.authorization_details),
      authorizationDetailsForAccessToken: (ctx, token, source) => source?.rar,
      authorizationDetailsForIntrospection: (ctx, token) => token.rar,
    },
  },
})

provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith('/interaction/')) return next()
  const { params, grantId } = await provider.interactionDetails(ctx.req, ctx.res)
  const grant = grantId
    ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId: 'customer', clientId: params.client_id })
  grant.addOIDCScope(params.scope)
  grant.addResourceScope(RESOURCE, params.scope)
  for (const one of JSON.parse(params.authorization_details ?? '[]')) grant.addRar(one)
  const login = { accountId: 'customer' }
  const consent = { grantId: await grant.save() }
  await provider.interactionFinished(ctx.req, ctx.res, { login, consent })
  ctx.respond = false
})

const server = https.createServer(
  {
    key: read(manifest.tpps[0].server_key),
    cert: read(manifest.tpps[0].server_cert),
    ca: read(manifest.ca_bundle),
    requestCert: true,
    // Whoever comes without a certificate, or with a stranger's, is to be refused by the provider: that is what is compared.
    rejectUnauthorized: false,
  },
  provider.callback(),
)
server.listen(Number(port), '127.0.0.1', () => console.log('ready'))
process.stdin.on('end', () => process.exit(0)).resume()
