// An unmodified certified client (openid-client) against a running sandbox.
//
//   node openid_client.mjs DIR MODE[,MODE...]      MODE: mtls, dpop, mtls-jarm, dpop-jarm, mtls-jwe
//
// DIR holds sandbox.json. JARM needs a Hub with switches.jarm, JWE one with switches.encrypted_id_tokens. Prints one JSON line per mode; any failure ends with a
// stack trace and status 1.
import { importPKCS8 } from 'jose'
import * as oc from 'openid-client'
import { approve, detail, each, expect, manifest, overTls, read, resource, signing, tpp } from './shared.mjs'

async function run(mode) {
  const execute = [oc.enableNonRepudiationChecks]
  if (mode.includes('jarm')) execute.push(oc.useJwtResponseMode)
  if (mode.includes('jwe')) {
    const key = await importPKCS8(read(tpp.encryption_key).toString(), 'RSA-OAEP-256')
    const decrypting = { kid: tpp.encryption_kid, key }
    execute.push((config) => oc.enableDecryptingResponses(config, ['A256GCM'], decrypting))
  }
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
  expect(tokens.authorization_details[0].consent.Data.Status === 'Authorized', 'the consent')
  const { sub } = tokens.claims()
  await oc.fetchUserInfo(config, tokens.access_token, sub, { DPoP })
  const reading = [new URL(resource), 'GET', null, new Headers(), { DPoP }]
  const accounts = await oc.fetchProtectedResource(config, tokens.access_token, ...reading)
  expect(accounts.status === 200, `200 from /accounts, got ${accounts.status}`)
  const refreshed = await oc.refreshTokenGrant(config, tokens.refresh_token, undefined, { DPoP })
  expect(refreshed.refresh_token === undefined, 'no new refresh token')
  expect((await oc.tokenIntrospection(config, refreshed.access_token)).active, 'an active token')
  await oc.tokenRevocation(config, tokens.refresh_token)
  const after = await oc.tokenIntrospection(config, refreshed.access_token)
  expect(!after.active, 'a revoked token')
  await oc.clientCredentialsGrant(config, { scope: 'openid accounts' }, { DPoP })
  return { token_type: tokens.token_type }
}

await each(run)
