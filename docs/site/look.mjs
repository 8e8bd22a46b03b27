// Serves the documentation site on loopback and looks at it in Chromium: node look.mjs SITE SCREENSHOTS. Each finding
// is a line on standard output, and the exit code is 1 if there is any.
import { createReadStream } from 'node:fs'
import { mkdir, readFile, stat } from 'node:fs/promises'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { extname, join, normalize } from 'node:path'
import { chromium } from 'playwright-core'

const [site, screenshots] = process.argv.slice(2)
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const finding = (...parts) => { console.log(parts.join(': ')); process.exitCode = 1 }

const types = { '.html': 'text/html', '.css': 'text/css', '.js': 'text/javascript', '.json': 'application/json',
  '.svg': 'image/svg+xml', '.png': 'image/png' }
const server = createServer(async (request, response) => {
  let path = join(site, normalize(decodeURIComponent(new URL(request.url, 'http://x').pathname)))
  const found = await stat(path).catch(() => null)
  if (found?.isDirectory()) path = join(path, 'index.html')
  response.setHeader('Content-Type', types[extname(path)] ?? 'text/plain')
  createReadStream(path).on('error', () => response.writeHead(404).end()).pipe(response)
})
await new Promise((listening) => server.listen(0, '127.0.0.1', listening))
const origin = `http://127.0.0.1:${server.address().port}`

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
})

// The colour schemes at the widths of a telephone and of a desktop.
const views = [[390, 'light'], [390, 'dark'], [1280, 'light'], [1280, 'dark']]

async function tab(width, scheme) {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme: scheme })
  const page = await context.newPage()
  const at = () => `${new URL(page.url()).pathname} ${width} ${scheme}`
  page.on('console', (message) => { if (message.type() === 'error') finding(at(), 'console', message.text()) })
  page.on('pageerror', (error) => finding(at(), 'error', error.message))
  page.on('request', (request) => {
    const url = new URL(request.url())
    if (!['data:', 'blob:'].includes(url.protocol) && url.origin !== origin) finding(at(), 'request', url.href)
  })
  page.on('response', (response) => { if (!response.ok()) finding(at(), response.status(), response.url()) })
  return { page, at }
}

async function look(width, scheme) {
  const { page, at } = await tab(width, scheme)
  for (const path of pages) {
    await page.goto(origin + path)
    if (path === '/docs/state-machine/') await page.locator('div.mermaid').waitFor()
    const name = path.replace(/^\/|\/$/g, '').replaceAll('/', '-') || 'start'
    await page.screenshot({ path: join(screenshots, `${name}-${width}-${scheme}.png`) })
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
    if (wide > 0) finding(at(), 'layout', `the page is ${wide} px wider than the window`)
    if ((width === 390) !== (scheme === 'dark')) continue // each scheme and each width is enough for what follows
    await page.evaluate(axe)
    // The theme gives the label of its menu an aria-label but no role.
    const { violations } = await page.evaluate(() => globalThis.axe.run({ exclude: ['label.md-header__button'] },
      { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'] }))
    for (const v of violations) {
      const [node] = v.nodes
      finding(at(), 'axe', v.id, v.help, node.html.slice(0, 200), node.any.map((check) => check.message).join())
    }
  }
  await page.context().close()
}

async function search(words, want) {
  const { page } = await tab(1280, 'light')
  await page.goto(origin)
  await page.keyboard.press('/')
  await page.locator('input:focus').pressSequentially(words) // waits until the dialog has the focus
  const hit = page.locator(want).first()
  await hit.waitFor({ timeout: 10000 }).catch(() => finding(`search for ${words}`, `no link to ${want}`))
  await page.screenshot({ path: join(screenshots, `search-${words}.png`) })
  await page.context().close()
}

await mkdir(screenshots, { recursive: true })
const pages = ['/', '/docs/install/', '/docs/kubernetes/', '/docs/signers/', '/docs/runbook/', '/docs/state-machine/',
  '/docs/ARCHITECTURE/', '/docs/adr/', '/reference/settings/', '/reference/purser-night/', '/schemas/']
await Promise.all(views.map((view) => look(...view)))
await search('409', 'a[href*="/docs/rules/"][href$="#409-is-a-question"]:visible')
await browser.close()
server.close()
