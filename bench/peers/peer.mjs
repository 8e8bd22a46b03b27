// What a careful integrator writes in an afternoon, in JavaScript: node peer.mjs EXPORT KEYS JOURNAL.
//
// Each row: create the customer, sign its challenge, submit the signature, note the row in the journal. After silence
// a request is repeated under the same idempotency key; after a 5xx, which the partner may have stored under the key,
// under the next key. A token bucket keeps the rate; a restart skips the journal's rows. Exit code 1 if rows are left.

import { createHash, createPrivateKey, sign as signWith } from 'node:crypto'
import { appendFileSync, existsSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { Wallet } from 'ethers'
import { v5 as uuid } from 'uuid'

const env = process.env
const api = env.OFFBLOCKS_API_URL
const { host, pathname: basePath } = new URL(api)
const concurrency = 32
const attempts = 8
const namespace = uuid(`${api}#${env.OFFBLOCKS_API_KEY}`, uuid.URL)
const signingKey = createPrivateKey(readFileSync(env.OFFBLOCKS_SIGNING_KEY))
const secret = readFileSync(env.OFFBLOCKS_API_SECRET_FILE, 'utf8').trim()

const backoff = (attempt) => sleep(Math.min(5000, 100 * 2 ** attempt) * (0.5 + Math.random() / 2))

// A token bucket that holds 20 ms of requests.
const rate = Number(env.PURSER_RATE)
const burst = Math.max(1, rate / 50)
let tokens = burst
let last = performance.now()
async function take() {
  const now = performance.now()
  tokens = Math.min(burst, tokens + ((now - last) / 1000) * rate) - 1
  last = now
  if (tokens < 0) await sleep((-tokens / rate) * 1000)
}

let token
let loggingIn
function logIn(old) {
  if (token !== old) return
  loggingIn ??= fetchToken().finally(() => { loggingIn = undefined })
  return loggingIn
}

async function fetchToken() {
  const body = JSON.stringify({ apiKey: env.OFFBLOCKS_API_KEY, apiSecret: secret })
  for (let attempt = 0; attempt < attempts; attempt++) {
    await take()
    try {
      const response = await fetch(`${api}/auth/token`, {
        method: 'POST', body, headers: { 'content-type': 'application/json' }, signal: AbortSignal.timeout(30000),
      })
      if (response.ok) {
        token = (await response.json()).token
        return
      }
    } catch { /* again */ }
    await backoff(attempt)
  }
  throw new Error('no token')
}

// Adds the RFC 9421 signature over method, target and the given headers.
function sign(method, path, headers) {
  const base = { '@method': method, '@authority': host, '@path': basePath + path, ...headers }
  const covered = Object.keys(base).map((name) => `"${name}"`).join(' ')
  const created = Math.floor(Date.now() / 1000)
  const params = `(${covered});created=${created};keyid="${env.OFFBLOCKS_SIGNING_KEY_ID}";alg="ecdsa-p384-sha384"`
  const lines = Object.entries({ ...base, '@signature-params': params }).map(([name, value]) => `"${name}": ${value}`)
  const raw = signWith('sha384', Buffer.from(lines.join('\n')), { key: signingKey, dsaEncoding: 'ieee-p1363' })
  return { ...headers, 'signature-input': `sig=${params}`, signature: `sig=:${raw.toString('base64')}:` }
}

// Sends a request until there is an answer that is not to be repeated.
async function call(method, path, body, name) {
  const data = body && JSON.stringify(body)
  let generation = 0
  for (let attempt = 0; attempt < attempts; attempt++) {
    if (!token) await logIn()
    const used = token
    const headers = { authorization: `Bearer ${used}` }
    if (data) {
      headers['content-type'] = 'application/json'
      headers['content-digest'] = `sha-256=:${createHash('sha256').update(data).digest('base64')}:`
      headers['idempotency-key'] = uuid(`${name}:${generation}`, namespace)
    }
    await take()
    try {
      const response = await fetch(api + path, {
        method, body: data, headers: sign(method, path, headers),
        redirect: 'manual', signal: AbortSignal.timeout(30000),
      })
      const text = await response.text()
      const { status, ok } = response
      if (status === 401) {
        await logIn(used)
      } else if (status === 429 || status >= 500) {
        const after = response.headers.get('retry-after')
        if (!after) generation++
        await (after ? sleep(Number(after) * 1000) : backoff(attempt))
      } else {
        return { status, ok, body: ok && text ? JSON.parse(text) : text }
      }
    } catch {
      await backoff(attempt)
    }
  }
  throw new Error(`${method} ${path}: no answer after ${attempts} attempts`)
}

// Looks the customer up in the list.
async function find(account, externalId) {
  const { ok, status, body } = await call('GET', '/customers')
  if (!ok) throw new Error(`list: ${status}`)
  return body.find((c) => c.externalId === externalId && c.chainId.toLowerCase() === account.toLowerCase())
}

async function create(account, externalId) {
  for (let attempt = 0; attempt < attempts; attempt++) {
    const answer = await call('POST', '/customers', { chainId: account, externalId }, `create:${account}:${externalId}`)
    if (answer.status === 201) return answer.body
    if (answer.status !== 409) throw new Error(`create: ${answer.status} ${answer.body}`)
    // It exists already, or a request with the key is in flight.
    const customer = await find(account, externalId)
    if (customer) return customer
    await backoff(attempt)
  }
  throw new Error('create: 409, but not in the list')
}

async function onboard({ address, externalId, chainId }, key) {
  const account = `${chainId}:${address}`
  let customer = await create(account, externalId)
  const path = `/customers/${customer.id}`
  let { challenge } = customer
  for (let round = 0; round < 4; round++) {
    if (customer.status !== 'initiating') return
    if (!challenge) {
      const answer = await call('GET', `${path}/challenge`)
      if (!answer.ok) throw new Error(`challenge: ${answer.status}`)
      challenge = answer.body.challenge
    }
    const signature = new Wallet(key).signMessageSync(Buffer.from(challenge, 'base64'))
    const body = { ownerId: account, signature: Buffer.from(signature).toString('base64') }
    const answer = await call('POST', `${path}/challenge/sign`, body, `sign:${account}:${challenge}`)
    if (answer.ok) return
    // Signed before, in flight, or there is a new challenge.
    challenge = undefined
    const read = await call('GET', path)
    if (!read.ok) throw new Error(`read: ${read.status}`)
    customer = read.body
  }
  throw new Error('sign: refused four times')
}

function readCSV(path) {
  const [head, ...lines] = readFileSync(path, 'utf8').trimEnd().split('\n').map((line) => line.split(','))
  return lines.map((fields) => Object.fromEntries(head.map((name, i) => [name, fields[i]])))
}

const [rowsPath, keysPath, journal] = process.argv.slice(2)
const keys = new Map(readCSV(keysPath).map(({ address, privateKey }) => [address, privateKey]))
const done = new Set(existsSync(journal) ? readFileSync(journal, 'utf8').split('\n').slice(0, -1) : [])
const left = readCSV(rowsPath).filter(({ externalId }) => !done.has(externalId)).values()
let failed = 0
await Promise.all(Array.from({ length: concurrency }, async () => {
  for (const row of left) {
    try {
      await onboard(row, keys.get(row.address))
      appendFileSync(journal, `${row.externalId}\n`)
    } catch (error) { // a row must not stop the others
      failed++
      console.error(row.externalId, String(error))
    }
  }
}))
process.exitCode = failed ? 1 : 0
