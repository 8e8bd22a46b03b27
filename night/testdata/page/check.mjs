// Opens the pages of a folder in Chromium and checks them: node check.mjs FOLDER SCREENSHOTS. Each finding is a line on
// standard output; nothing else is printed.
import { readFile, readdir, mkdir, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join, basename } from 'node:path'
import { pathToFileURL } from 'node:url'
import { chromium } from 'playwright-core'
import { FileSystemConfigLoader, HtmlValidate } from 'html-validate'

const [folder, screenshots] = process.argv.slice(2)
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const validator = new HtmlValidate(new FileSystemConfigLoader({ extends: ['html-validate:recommended'] }))
const finding = (...parts) => console.log(parts.join(': '))

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
})

// every is how a page is looked at that has all there is; the others are looked at once.
const every = [360, 768, 1280].flatMap((width) => ['light', 'dark'].map((scheme) => [width, scheme]))

async function look(name, path, width, scheme) {
  const at = `${name} ${width} ${scheme}`
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme: scheme })
  const page = await context.newPage()
  page.on('console', (message) => finding(at, 'console', message.text()))
  page.on('pageerror', (error) => finding(at, 'error', error.message))
  page.on('request', (request) => {
    if (request.url() !== pathToFileURL(path).href) finding(at, 'request', request.url())
  })
  await page.goto(pathToFileURL(path).href)
  await page.screenshot({ path: join(screenshots, `${name}-${width}-${scheme}.png`), fullPage: true })
  const { wide, styled } = await page.evaluate(() => ({
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    styled: getComputedStyle(document.querySelector('main > section')).borderRadius !== '0px',
  }))
  if (wide > 0) finding(at, 'layout', `the page is ${wide} px wider than the window`)
  if (!styled) finding(at, 'layout', 'the style was not applied')
  if (name === 'huge') return context.close() // only its layout: it has nothing that the others lack
  await page.evaluate(() => document.querySelectorAll('details').forEach((d) => { d.open = true }))
  await page.evaluate(axe)
  const { violations } = await page.evaluate(() => globalThis.axe.run())
  for (const v of violations) {
    finding(at, 'axe', v.id, v.help, v.nodes[0].html.slice(0, 200), v.nodes[0].any.map((c) => c.message).join('; '))
  }
  await context.close()
}

async function print(name, path) {
  const page = await browser.newPage()
  await page.goto(pathToFileURL(path).href)
  const pdf = await page.pdf({ format: 'A4', printBackground: true })
  await writeFile(join(screenshots, `${name}.pdf`), pdf)
  if (!pdf.subarray(0, 5).equals(Buffer.from('%PDF-'))) finding(name, 'pdf', 'is none')
  await page.close()
}

await mkdir(screenshots, { recursive: true })
for (const file of (await readdir(folder)).filter((f) => f.endsWith('.html')).sort()) {
  const name = basename(file, '.html')
  const path = join(folder, file)
  const report = await validator.validateString(await readFile(path, 'utf8'))
  for (const m of report.results.flatMap((r) => r.messages)) {
    finding(name, 'html-validate', `line ${m.line}`, m.ruleId, m.message)
  }
  for (const [width, scheme] of name === 'bad' ? every : [[1280, 'light']]) await look(name, path, width, scheme)
  if (name === 'bad' || name === 'good') await print(name, path)
}
await browser.close()
