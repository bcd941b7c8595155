// An unmodified certified client (openid-client) against a running sandbox.
//
//   node openid_client.mjs DIR MODE[,MODE...]      MODE: mtls, dpop, mtls-jarm, dpop-jarm
//
// DIR holds sandbox.json. The bank's part is played with the bank's own certificate, so that no page is needed.
// JARM needs a Hub with switches.jarm. Prints one JSON line per mode; any failure ends with a stack trace and status 1.
import fs from 'node:fs'
import { randomUUID } from 'node:crypto'
import { importPKCS8 } from 'jose'
import * as oc from 'openid-client'
import * as undici from 'undici'

const [dir, modes] = [process.argv[2], process.argv[3].split(',')]
const read = (name) => fs.readFileSync(`${dir}/${name}`)
const manifest = JSON.parse(read('sandbox.json'))
const [tpp] = manifest.tpps
const agentOf = (cert, key) =>
  new undici.Agent({ connect: { key: read(key), cert: read(cert), ca: read(manifest.ca_bundle) } })
const tppAgent = agentOf(tpp.transport_cert, tpp.transport_key)
const bankAgent = agentOf(manifest.bank.transport_cert, manifest.bank.transport_key)
const overTls = (url, options) => undici.fetch(url, { ...options, dispatcher: tppAgent })
const askHub = (url, options) =>
  undici.fetch(url, { ...options, dispatcher: bankAgent, redirect: 'manual' })
const signing = {
  kid: tpp.signing_kid,
  key: await importPKCS8(read(tpp.signing_key).toString(), 'PS256'),
}

function expect(truth, what) {
  if (!truth) throw new Error(`expected ${what}`)
}

async function approve(url) {
  const { heimdall_base: heimdall, consent_manager_base: consents } = manifest.hub
  const got = await askHub(`${heimdall}/auth${new URL(url).search}`)
  expect(got.status === 200, `200 from GET /auth, got ${got.status}`)
  const { interaction } = await got.json()
  const patched = await askHub(`${consents}/consents/${interaction.consentId}`, {
    method: 'PATCH',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      'consentBody.Data.Status': 'Authorized',
      psuIdentifiers: { userId: 'outside-customer' },
      accountIds: ['100100000001'],
      authorizationChannel: 'Web',
    }),
  })
  expect(patched.status === 204, `204 from PATCH /consents, got ${patched.status}`)
  const confirmed = await askHub(`${heimdall}/auth/${interaction.interactionId}/doConfirm`, {
    method: 'POST',
  })
  expect(confirmed.status === 303, `303 from doConfirm, got ${confirmed.status}`)
  return confirmed.headers.get('location')
}

const detail = () => ({
  type: 'urn:openfinanceuae:account-access-consent:v2.1',
  consent: {
    ConsentId: randomUUID(),
    Permissions: ['ReadAccountsBasic', 'ReadBalances'],
    ExpirationDateTime: new Date(Date.now() + 86_400_000).toISOString(),
    OpenFinanceBilling: { UserType: 'Retail', Purpose: 'AccountAggregation' },
  },
})

async function run(mode) {
  const execute = [oc.enableNonRepudiationChecks]
  if (mode.includes('jarm')) execute.push(oc.useJwtResponseMode)
  const config = await oc.discovery(
    new URL(manifest.hub.issuer),
    tpp.client_id,
    {
      use_mtls_endpoint_aliases: true,
      id_token_signed_response_alg: 'PS256',
      authorization_signed_response_alg: 'PS256',
    },
    oc.PrivateKeyJwt(signing),
    { execute, [oc.customFetch]: overTls },
  )
  const DPoP = mode.includes('dpop')
    ? oc.getDPoPHandle(config, await oc.randomDPoPKeyPair('PS256'))
    : undefined
  const pkceCodeVerifier = oc.randomPKCECodeVerifier()
  const [expectedNonce, expectedState] = [oc.randomNonce(), oc.randomState()]
  const parameters = {
    redirect_uri: tpp.redirect_uris[0],
    scope: 'openid accounts',
    nonce: expectedNonce,
    state: expectedState,
    code_challenge_method: 'S256',
    code_challenge: await oc.calculatePKCECodeChallenge(pkceCodeVerifier),
    authorization_details: JSON.stringify([detail()]),
  }
  if (DPoP) parameters.dpop_jkt = await DPoP.calculateThumbprint()
  const jar = await oc.buildAuthorizationUrlWithJAR(config, parameters, signing)
  const url = await oc.buildAuthorizationUrlWithPAR(config, jar.searchParams, { DPoP })
  const tokens = await oc.authorizationCodeGrant(
    config,
    new URL(await approve(url)),
    { pkceCodeVerifier, expectedNonce, expectedState, idTokenExpected: true },
    undefined,
    { DPoP },
  )
  const { sub } = tokens.claims()
  await oc.fetchUserInfo(config, tokens.access_token, sub, { DPoP })
  const refreshed = await oc.refreshTokenGrant(config, tokens.refresh_token, undefined, { DPoP })
  expect(refreshed.refresh_token === undefined, 'no new refresh token')
  expect((await oc.tokenIntrospection(config, refreshed.access_token)).active, 'an active token')
  await oc.tokenRevocation(config, tokens.refresh_token)
  const after = await oc.tokenIntrospection(config, refreshed.access_token)
  expect(!after.active, 'a revoked token')
  await oc.clientCredentialsGrant(config, { scope: 'openid accounts' }, { DPoP })
  console.log(JSON.stringify({ mode, token_type: tokens.token_type, ok: true }))
}

try {
  for (const mode of modes) await run(mode)
} finally {
  await Promise.all([tppAgent.close(), bankAgent.close()])
}
