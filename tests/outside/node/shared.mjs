// What the outside clients share: the sandbox's manifest, mutual TLS, and the customer who approves at the bank's pages.
import fs from 'node:fs'
import { randomUUID } from 'node:crypto'
import { importPKCS8 } from 'jose'
import * as undici from 'undici'

const folder = process.argv[2]
export const modes = (process.argv[3] ?? '').split(',')
export const read = (name) => fs.readFileSync(`${folder}/${name}`)
export const manifest = JSON.parse(read('sandbox.json'))
export const [tpp, otherTpp] = manifest.tpps
const agents = []

export function agentOf(cert, key) {
  const agent = new undici.Agent({
    connect: { key: read(key), cert: read(cert), ca: read(manifest.ca_bundle) },
  })
  agents.push(agent)
  return agent
}

const tppAgent = agentOf(tpp.transport_cert, tpp.transport_key)
const browserAgent = new undici.Agent({ connect: { ca: read(manifest.ca_bundle) } })
agents.push(browserAgent)
export const overTls = (url, options) => undici.fetch(url, { ...options, dispatcher: tppAgent })
export const signing = {
  kid: tpp.signing_kid,
  key: await importPKCS8(read(tpp.signing_key).toString(), 'PS256'),
}
export const resource = `${manifest.hub.resource_base}/open-finance/account-information/v2.1/accounts`
const [customer] = manifest.customers

export function expect(truth, what) {
  if (!truth) throw new Error(`expected ${what}`)
}

// Be the customer's browser: log in at the bank, approve every account; return where the bank sends it.
export async function approve(url) {
  const cookies = new Map()
  let next = { url, method: 'GET' }
  for (let step = 0; step < 12; step += 1) {
    const headers = { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') }
    const { url: at, ...rest } = next
    const page = await undici.fetch(at, {
      ...rest,
      headers,
      redirect: 'manual',
      dispatcher: browserAgent,
    })
    for (const cookie of page.headers.getSetCookie()) {
      const [name, value] = cookie.split(';')[0].split('=')
      cookies.set(name, value)
    }
    const text = await page.text()
    const location = page.headers.get('location')
    if (location?.startsWith(tpp.redirect_uris[0])) return location
    if (location) next = { url: new URL(location, at), method: 'GET' }
    else next = filledIn(text, at)
  }
  throw new Error("the bank's pages do not end")
}

function filledIn(html, at) {
  const [, attributes, inside] = /<form([^>]*)>([\s\S]*?)<\/form>/.exec(html) ?? []
  expect(inside, `a form, got ${html}`)
  const value = (tag, name) => new RegExp(`${name}="([^"]*)"`).exec(tag)?.[1]
  const body = new URLSearchParams()
  for (const [tag] of inside.matchAll(/<(?:input|button|select)[^>]*>/g)) {
    const name = value(tag, 'name')
    if (value(tag, 'type') === 'hidden' || name === 'account') body.append(name, value(tag, 'value'))
    if (name === 'username') body.append(name, customer.username)
    if (name === 'password') body.append(name, customer.password)
    if (name === 'decision' && !body.has(name)) body.append(name, 'approve')
  }
  return { url: new URL(value(attributes, 'action') ?? '', at), method: 'POST', body }
}

export const detail = () => ({
  type: 'urn:openfinanceuae:account-access-consent:v2.1',
  consent: {
    ConsentId: randomUUID(),
    Permissions: ['ReadAccountsBasic', 'ReadBalances'],
    ExpirationDateTime: new Date(Date.now() + 86_400_000).toISOString(),
    OpenFinanceBilling: { UserType: 'Retail', Purpose: 'AccountAggregation' },
  },
})

export async function each(run) {
  try {
    for (const mode of modes) console.log(JSON.stringify({ mode, ...(await run(mode)) }))
  } finally {
    await Promise.all(agents.map((agent) => agent.close()))
  }
}
