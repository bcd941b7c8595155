// An unmodified certified client (oauth4webapi) against a running sandbox, each step checked by itself.
//
//   node oauth4webapi.mjs DIR MODE[,MODE...]      MODE: mtls, dpop, mtls-jarm, dpop-jarm
//
// JARM modes also ask for signed introspection answers, so they need switches.jarm and switches.signed_introspection.
import * as o from 'oauth4webapi'
import { approve, detail, each, expect, manifest, overTls, resource, signing, tpp } from './shared.mjs'

const tls = { [o.customFetch]: overTls }

async function run(mode) {
  const jarm = mode.includes('jarm')
  const issuer = new URL(manifest.hub.issuer)
  const found = await o.discoveryRequest(issuer, { algorithm: 'oidc', ...tls })
  const as = await o.processDiscoveryResponse(issuer, found)
  const client = {
    client_id: tpp.client_id,
    use_mtls_endpoint_aliases: true,
    id_token_signed_response_alg: 'PS256',
    authorization_signed_response_alg: 'PS256',
    introspection_signed_response_alg: 'PS256',
  }
  const auth = o.PrivateKeyJwt(signing)
  const pair = () => o.generateKeyPair('PS256', { extractable: true })
  const DPoP = mode.includes('dpop') ? o.DPoP(client, await pair()) : undefined
  const options = { DPoP, ...tls }
  const verifier = o.generateRandomCodeVerifier()
  const [nonce, state] = [o.generateRandomNonce(), o.generateRandomState()]
  const parameters = new URLSearchParams({
    response_type: 'code',
    redirect_uri: tpp.redirect_uris[0],
    scope: 'openid accounts',
    nonce,
    state,
    code_challenge: await o.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    authorization_details: JSON.stringify([detail()]),
  })
  if (jarm) parameters.set('response_mode', 'jwt')
  const request = await o.issueRequestObject(as, client, parameters, signing)
  const pushing = await o.pushedAuthorizationRequest(as, client, auth, { request }, options)
  const { request_uri } = await o.processPushedAuthorizationResponse(as, client, pushing)

  const url = new URL(as.authorization_endpoint)
  url.search = new URLSearchParams({ client_id: tpp.client_id, request_uri })
  const back = new URL(await approve(url.href))
  const callback = jarm
    ? await o.validateJwtAuthResponse(as, client, back, state, tls)
    : o.validateAuthResponse(as, client, back, state)
  const redirect = tpp.redirect_uris[0]
  const redeeming = [as, client, auth, callback, redirect, verifier, options]
  const redeemed = await o.authorizationCodeGrantRequest(...redeeming)
  const tokens = await o.processAuthorizationCodeResponse(as, client, redeemed, {
    expectedNonce: nonce,
    requireIdToken: true,
  })
  await o.validateApplicationLevelSignature(as, redeemed, tls)
  const { sub } = o.getValidatedIdTokenClaims(tokens)

  const asked = await o.userInfoRequest(as, client, tokens.access_token, options)
  await o.processUserInfoResponse(as, client, sub, asked)
  const reading = [tokens.access_token, 'GET', new URL(resource), new Headers(), null, options]
  const accounts = await o.protectedResourceRequest(...reading)
  expect(accounts.status === 200, `200 from /accounts, got ${accounts.status}`)

  const refreshing = [as, client, auth, tokens.refresh_token, options]
  const answer = await o.refreshTokenGrantRequest(...refreshing)
  const refreshed = await o.processRefreshTokenResponse(as, client, answer)
  expect(refreshed.refresh_token === undefined, 'no new refresh token')
  const introspect = async (token) => {
    const how = { requestJwtResponse: jarm, ...tls }
    const response = await o.introspectionRequest(as, client, auth, token, how)
    const processed = await o.processIntrospectionResponse(as, client, response)
    if (jarm) await o.validateApplicationLevelSignature(as, response, tls)
    return processed
  }
  const described = await introspect(refreshed.access_token)
  expect(described.active, 'an active token')
  expect(Boolean(described.cnf.jkt) === Boolean(DPoP), 'a binding to the DPoP key, if there is one')
  const revoking = await o.revocationRequest(as, client, auth, tokens.refresh_token, tls)
  await o.processRevocationResponse(revoking)
  expect(!(await introspect(refreshed.access_token)).active, 'a revoked token')
  const own = new URLSearchParams({ scope: 'openid accounts' })
  const credentials = await o.clientCredentialsGrantRequest(as, client, auth, own, options)
  await o.processClientCredentialsResponse(as, client, credentials)
  return { token_type: tokens.token_type }
}

await each(run)
