// A gateway for Node: node:http2 in front, undici behind, jose and ajv for the checks.
//
// It does for each request what the Hub does: client certificate against the token's binding, token by its SHA-256 (all
// tokens are in memory from the start), expiry, scope, role, consent status and permission, account, interaction id,
// query, the o3-* headers, mapping of the bank's answer, one JSON line of audit. DPoP proofs and signed payments are
// verified each time (keys are parsed once). Its advantage: the audit is only hashed in memory, never durable.
import crypto from 'node:crypto'
import fs from 'node:fs'
import http2 from 'node:http2'
import Ajv from 'ajv'
import * as jose from 'jose'
import { Pool } from 'undici'

const config = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'))
const read = (path) => fs.readFileSync(path)
const sha256 = (data) => crypto.createHash('sha256').update(data).digest('base64url')
const now = () => Math.floor(Date.now() / 1000)

const bank = new Pool(config.bank, {
  connections: 64,
  pipelining: 1,
  connect: {
    key: read(config.clientKey), cert: read(config.clientCertificate), ca: read(config.ca), servername: 'localhost',
  },
})

const tokens = new Map(config.tokens.map((token) => [token.sha256, { ...token, scopes: new Set(token.scope.split(' ')) }]))
const consents = new Map(config.consents.map((consent) => [consent.id, {
  ...consent,
  permissions: new Set(consent.permissions),
  accounts: new Set(consent.accounts),
  psu: Buffer.from(JSON.stringify({ userId: consent.user })).toString('base64'),
}]))
const clients = new Map(config.clients.map((client) => [client.clientId, {
  ...client,
  roles: new Set(client.roles),
  keys: new Map(client.keys.map((jwk) => [jwk.kid, crypto.createPublicKey({ key: jwk, format: 'jwk' })])),
}]))
const signingKey = crypto.createPrivateKey(read(config.signingKey))
const answerHeader = Buffer.from(JSON.stringify({ alg: 'PS256', kid: config.signingKid, typ: 'JWT' })).toString('base64url')
const pss = { padding: crypto.constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 }

const ajv = new Ajv({ strict: false, allErrors: false })
const amount = {
  type: 'object', required: ['Amount', 'Currency'], additionalProperties: false,
  properties: { Amount: { type: 'string', pattern: '^\\d{1,16}\\.\\d{2}$' }, Currency: { type: 'string', pattern: '^[A-Z]{3}$' } },
}
const validPayment = ajv.compile({
  type: 'object', required: ['Data'], additionalProperties: false,
  properties: {
    Data: {
      type: 'object', additionalProperties: false,
      required: ['ConsentId', 'Instruction', 'PaymentPurposeCode', 'PersonalIdentifiableInformation', 'OpenFinanceBilling'],
      properties: {
        ConsentId: { type: 'string', minLength: 1, maxLength: 128 },
        Instruction: { type: 'object', required: ['Amount'], additionalProperties: false, properties: { Amount: amount } },
        PaymentPurposeCode: { type: 'string', pattern: '^[A-Z]{3}$' },
        PersonalIdentifiableInformation: { type: 'string', pattern: '^[\\w-]+(\\.[\\w-]+){4}$' },
        DebtorReference: { type: 'string', maxLength: 120 },
        CreditorReference: { type: 'string', maxLength: 120 },
        OpenFinanceBilling: { type: 'object', required: ['Type'], properties: { Type: { type: 'string' } } },
      },
    },
  },
})
const validBalances = ajv.compile({
  type: 'object', required: ['data'],
  properties: {
    data: {
      type: 'array',
      items: {
        type: 'object', required: ['accountId', 'creditDebitIndicator', 'balanceType', 'timestamp', 'amount'],
        properties: {
          accountId: { type: 'string' },
          creditDebitIndicator: { enum: ['Credit', 'Debit'] },
          balanceType: { type: 'string' },
          timestamp: { type: 'string' },
          amount: { type: 'object', required: ['amount', 'currency'] },
        },
      },
    },
    meta: { type: 'object' },
  },
})

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/i
const BALANCES = /^\/open-finance\/account-information\/v2\.1\/accounts\/([^/]+)\/balances$/
const PAYMENTS = '/open-finance/payment/v2.1/payments'

class Refusal extends Error {
  constructor (status, code) { super(code); this.status = status; this.code = code }
}

const peers = new WeakMap()
function thumbprint (session) {
  let known = peers.get(session)
  if (known === undefined) {
    const certificate = session.socket.getPeerCertificate(false)
    if (!certificate.raw) throw new Refusal(401, '')
    known = sha256(certificate.raw)
    peers.set(session, known)
  }
  return known
}

const proofKeys = new Map()
const used = new Map()
let swept = now()
function once (value, until) {
  const moment = now()
  if (moment - swept > 30) {
    for (const [name, end] of used) if (end < moment) used.delete(name)
    swept = moment
  }
  if (used.has(value)) return false
  used.set(value, until)
  return true
}

// jose names the algorithms and makes the key thumbprints; the verification itself is OpenSSL's, called directly
// (jose's is asynchronous, and each costs a hop to the thread pool).
async function checkProof (proof, method, url, token, jkt) {
  const first = proof.indexOf('.')
  const last = proof.lastIndexOf('.')
  const head = proof.slice(0, first)
  let key = proofKeys.get(head)
  if (key === undefined) {
    const header = jose.decodeProtectedHeader(proof)
    if (header.typ !== 'dpop+jwt' || header.alg !== 'ES256' || header.jwk.d) throw new Refusal(401, '')
    key = { key: crypto.createPublicKey({ key: header.jwk, format: 'jwk' }), jkt: await jose.calculateJwkThumbprint(header.jwk) }
    if (proofKeys.size > 1000) proofKeys.clear()
    proofKeys.set(head, key)
  }
  const good = crypto.verify('sha256', Buffer.from(proof.slice(0, last)), { key: key.key, dsaEncoding: 'ieee-p1363' },
    Buffer.from(proof.slice(last + 1), 'base64url'))
  if (!good || key.jkt !== jkt) throw new Refusal(401, '')
  const claims = JSON.parse(Buffer.from(proof.slice(first + 1, last), 'base64url'))
  const moment = now()
  if (claims.htm !== method || claims.htu !== url || claims.ath !== sha256(token) ||
      !(claims.iat > moment - 60 && claims.iat < moment + 30) || typeof claims.jti !== 'string') throw new Refusal(401, '')
  if (!once(`${key.jkt} ${claims.jti}`, claims.iat + 120)) throw new Refusal(401, '')
}

async function access (headers, method, path, session) {
  const given = headers.authorization
  const space = given === undefined ? -1 : given.indexOf(' ')
  if (space < 0) throw new Refusal(401, '')
  const scheme = given.slice(0, space).toLowerCase()
  const secret = given.slice(space + 1)
  const token = tokens.get(sha256(secret))
  if (token === undefined || token.expires <= now()) throw new Refusal(401, '')
  if (token.x5t !== thumbprint(session)) throw new Refusal(401, '')
  if (token.jkt) {
    if (scheme !== 'dpop' || !headers.dpop) throw new Refusal(401, '')
    await checkProof(headers.dpop, method, config.resourceBase + path, secret, token.jkt)
  } else if (scheme !== 'bearer') throw new Refusal(401, '')
  const client = clients.get(token.clientId)
  if (client === undefined || !client.active) throw new Refusal(401, '')
  const consent = consents.get(token.consentId)
  if (consent === undefined || consent.clientId !== token.clientId) throw new Refusal(401, '')
  if (consent.status !== 'Authorized' || consent.expires <= now()) throw new Refusal(400, 'Consent.Invalid')
  return { token, client, consent }
}

function enriched (found, headers, path, method, interactionId) {
  return {
    accept: 'application/json',
    'o3-provider-id': config.providerId,
    'o3-aspsp-id': config.providerId,
    'o3-caller-org-id': found.client.organisationId,
    'o3-caller-client-id': found.client.clientId,
    'o3-caller-software-statement-id': found.client.clientId,
    'o3-api-uri': path,
    'o3-api-operation': method,
    'o3-consent-id': found.consent.id,
    'o3-psu-identifier': found.consent.psu,
    'o3-ozone-interaction-id': interactionId,
    'o3-caller-interaction-id': interactionId,
    authorization: bearer(found),
  }
}

let bearerKept = { value: '', until: 0 }
function bearer () {
  const moment = now()
  if (bearerKept.until <= moment) {
    const claims = { iss: config.providerId, sub: config.providerId, aud: config.providerId, iat: moment, exp: moment + 30, jti: crypto.randomUUID() }
    bearerKept = { value: `Bearer ${signed(claims)}`, until: moment + 20 }
  }
  return bearerKept.value
}

function signed (claims) {
  const text = `${answerHeader}.${Buffer.from(JSON.stringify(claims)).toString('base64url')}`
  return `${text}.${crypto.sign('sha256', Buffer.from(text), { key: signingKey, ...pss }).toString('base64url')}`
}

async function balances (found, headers, path, query, account, interactionId) {
  const { token, client, consent } = found
  if (!token.scopes.has('accounts') || !client.roles.has('BDSP')) throw new Refusal(403, 'AccessToken.InvalidScope')
  if (!consent.permissions.has('ReadBalances')) throw new Refusal(403, 'AccessToken.InvalidScope')
  if (!consent.accounts.has(decodeURIComponent(account))) throw new Refusal(403, 'Consent.PermanentAccountAccessFailure')
  let page = '1'
  let size = '100'
  if (query) {
    const paging = new URLSearchParams(query)
    page = paging.get('page') ?? page
    size = paging.get('page-size') ?? size
  }
  if (!/^\d{1,6}$/.test(page) || !/^\d{1,4}$/.test(size)) throw new Refusal(400, 'Resource.InvalidFormat')
  const answer = await bank.request({
    path: `/accounts/${account}/balances?page=${page}&page-size=${size}`,
    method: 'GET',
    headers: enriched(found, headers, path, 'GET', interactionId),
  })
  const given = JSON.parse(await answer.body.text())
  if (answer.statusCode !== 200 || !validBalances(given)) throw new Refusal(500, 'GenericError')
  const value = {
    Data: {
      AccountId: account,
      Balance: given.data.map((one) => ({
        CreditDebitIndicator: one.creditDebitIndicator,
        Type: one.balanceType,
        DateTime: one.timestamp,
        Amount: { Amount: one.amount.amount, Currency: one.amount.currency },
      })),
    },
    Links: { Self: config.resourceBase + path },
    Meta: { TotalPages: given.meta?.totalPages ?? 1, TotalRecords: given.meta?.totalRecords },
  }
  return { status: 200, type: 'application/json', body: JSON.stringify(value) }
}

const keysUsed = new Map()
async function payment (found, headers, path, body, interactionId) {
  const { token, client, consent } = found
  if (!token.scopes.has('payments') || !client.roles.has('BSIP')) throw new Refusal(403, 'AccessToken.InvalidScope')
  const idempotency = headers['x-idempotency-key']
  if (!idempotency || idempotency.length > 40) throw new Refusal(400, 'Resource.InvalidFormat')
  const text = body.toString()
  const last = text.lastIndexOf('.')
  const header = jose.decodeProtectedHeader(text)
  const key = client.keys.get(header.kid)
  if (header.alg !== 'PS256' || key === undefined) throw new Refusal(400, 'JWS.InvalidHeader')
  if (!crypto.verify('sha256', Buffer.from(text.slice(0, last)), { key, ...pss }, Buffer.from(text.slice(last + 1), 'base64url'))) {
    throw new Refusal(400, 'JWS.InvalidSignature')
  }
  const claims = JSON.parse(Buffer.from(text.slice(text.indexOf('.') + 1, last), 'base64url'))
  const moment = now()
  if (claims.iss !== client.clientId || claims.aud !== config.issuer || claims.exp <= moment || claims.nbf > moment + 30) {
    throw new Refusal(400, 'JWS.InvalidClaim')
  }
  if (!validPayment(claims.message)) throw new Refusal(400, 'Body.InvalidFormat')
  const data = claims.message.Data
  if (data.ConsentId !== consent.id) throw new Refusal(400, 'Consent.Invalid')
  const asked = Math.round(Number(data.Instruction.Amount.Amount) * 100)
  if (asked > consent.individual || consent.taken + asked > consent.cumulative) throw new Refusal(400, 'Consent.FailsControlParameters')
  const name = `${client.clientId} ${idempotency}`
  if (keysUsed.has(name)) throw new Refusal(409, 'GenericError')
  consent.taken += asked
  keysUsed.set(name, moment)
  const envelope = {
    requestUrl: config.resourceBase + path, paymentType: 'cbuae-payment', request: { data },
    requestHeaders: { ...headers, authorization: undefined, dpop: undefined }, tpp: client.tpp,
  }
  const answer = await bank.request({
    path: '/payments',
    method: 'POST',
    headers: { ...enriched(found, headers, path, 'POST', interactionId), 'content-type': 'application/json' },
    body: JSON.stringify(envelope),
  })
  const given = JSON.parse(await answer.body.text())
  if (answer.statusCode !== 201) throw new Refusal(500, 'GenericError')
  const value = {
    Data: {
      PaymentId: given.data.id, ConsentId: consent.id, PaymentTransactionId: given.data.paymentTransactionId,
      Status: given.data.status, StatusUpdateDateTime: given.data.statusUpdateDateTime,
      CreationDateTime: given.data.creationDateTime, Instruction: data.Instruction, PaymentPurposeCode: data.PaymentPurposeCode,
      OpenFinanceBilling: data.OpenFinanceBilling,
    },
    Links: { Self: `${config.resourceBase}${path}/${given.data.id}` },
    Meta: {},
  }
  const answered = { iss: config.issuer, aud: [client.clientId], iat: moment, nbf: moment, exp: moment + 300, message: value }
  return { status: 201, type: 'application/jwt', body: signed(answered) }
}

let chain = Buffer.alloc(32)
function record (event) {
  chain = crypto.createHash('sha256').update(chain).update(JSON.stringify(event)).digest()
}

async function serve (stream, headers, body) {
  const began = Date.now()
  const target = headers[':path']
  const mark = target.indexOf('?')
  const path = mark < 0 ? target : target.slice(0, mark)
  const query = mark < 0 ? '' : target.slice(mark + 1)
  const method = headers[':method']
  const sent = headers['x-fapi-interaction-id']
  const interactionId = sent !== undefined && UUID.test(sent) ? sent : crypto.randomUUID()
  let answer
  let found
  try {
    const match = method === 'GET' ? BALANCES.exec(path) : null
    if (match === null && !(method === 'POST' && path === PAYMENTS)) throw new Refusal(404, '')
    found = await access(headers, method, path, stream.session)
    answer = match !== null
      ? await balances(found, headers, path, query, match[1], interactionId)
      : await payment(found, headers, path, body, interactionId)
  } catch (error) {
    if (!(error instanceof Refusal)) error = new Refusal(500, 'GenericError')
    const said = error.code ? JSON.stringify({ Errors: [{ Code: error.code }] }) : ''
    answer = { status: error.status, type: 'application/json', body: said }
  }
  record({
    v: 1, kind: 'call', time: began, interaction_id: interactionId, client_id: found?.client.clientId,
    consent_id: found?.consent.id, method, path, status: answer.status, octets: answer.body.length, ms: Date.now() - began,
  })
  if (stream.destroyed) return
  stream.respond({
    ':status': answer.status, 'content-type': answer.type, 'cache-control': 'no-store',
    'x-fapi-interaction-id': interactionId, 'content-length': Buffer.byteLength(answer.body),
  })
  stream.end(answer.body)
}

const server = http2.createSecureServer({
  key: read(config.key), cert: read(config.certificate), ca: read(config.ca), requestCert: true, rejectUnauthorized: true,
  minVersion: 'TLSv1.2', settings: { maxConcurrentStreams: 256 }, maxSessionMemory: 100,
})
server.on('stream', (stream, headers) => {
  stream.on('error', () => {})
  if (headers[':method'] === 'GET') { serve(stream, headers, null); return }
  const pieces = []
  let size = 0
  stream.on('data', (piece) => { size += piece.length; if (size < 1 << 20) pieces.push(piece); else stream.close() })
  stream.on('end', () => serve(stream, headers, Buffer.concat(pieces)))
})
server.on('sessionError', () => {})
server.listen(config.port, '127.0.0.1', 4096)
