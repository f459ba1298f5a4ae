// Looks at what kubepki draws in a real browser, as people with and without eyes
// and mouse do: `make picture` runs it. Arguments: a folder of *.html, *.svg and
// *.mmd, and where to put screenshots.
import { readFileSync, readdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import puppeteer from 'puppeteer-core'

const [folder, shots] = process.argv.slice(2)
const axe = readFileSync(new URL('./node_modules/axe-core/axe.min.js', import.meta.url), 'utf8')
const browser = await puppeteer.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] })
let failed = 0
const fail = (file, what) => { failed++; console.log(`FAIL ${file}: ${what}`) }

// overlaps are pairs of texts of a picture that cover each other.
const overlaps = () => {
  const boxes = [...document.querySelectorAll('svg.kp text')].filter(t => t.textContent.trim()).map(t => [t.textContent, t.getBoundingClientRect()])
  const found = []
  boxes.forEach(([a, p], i) => boxes.slice(i + 1).forEach(([b, q]) => {
    const x = Math.min(p.right, q.right) - Math.max(p.left, q.left), y = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top)
    if (x > 2 && y > 4) found.push(`${a} / ${b}`)
  }))
  for (const box of document.querySelectorAll('svg.kp .box')) {
    const text = box.querySelector('text').getBoundingClientRect(), rect = box.querySelector('rect').getBoundingClientRect()
    if (text.left < rect.left || text.right > rect.right) found.push(`${box.querySelector('text').textContent} / its box`)
  }
  return found
}

for (const file of readdirSync(folder).sort()) {
  if (!/\.(html|svg)$/.test(file)) continue
  const page = await browser.newPage()
  const said = []
  page.on('console', m => said.push(m.text()))
  page.on('pageerror', e => said.push(String(e)))
  page.on('request', r => { if (!/^(file|data):/.test(r.url())) fail(file, `asks for ${r.url()}`) })
  await page.setViewport({ width: 1600, height: 1000 })
  for (const scheme of ['light', 'dark']) {
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }])
    await page.goto(pathToFileURL(resolve(folder, file)).href)
    for (const o of await page.evaluate(overlaps)) fail(file, `texts overlap: ${o}`)
    if (shots) await page.screenshot({ path: join(shots, `${file}.${scheme}.png`), fullPage: true })
    if (file.endsWith('.html')) {
      const client = await page.createCDPSession()
      const { result } = await client.send('Runtime.evaluate', { expression: `${axe};axe.run().then(r => JSON.stringify(r.violations.map(v => v.id + ': ' + v.nodes.slice(0, 3).map(n => n.target + ' ' + n.failureSummary).join(' | '))))`, awaitPromise: true })
      for (const v of JSON.parse(result.value ?? '["axe did not run"]')) fail(file, `${scheme}: ${v}`)
    }
  }
  // Every link can be reached by the tabulator key, and says what it is.
  const links = await page.$$eval('svg .link', all => all.length)
  const reached = new Set()
  for (let i = 0; i < links * 2 + 30; i++) {
    await page.keyboard.press('Tab')
    const at = await page.evaluate(() => { const e = document.activeElement; return e?.classList?.contains('link') ? [e.id, e.getAttribute('aria-label'), getComputedStyle(e.querySelector('.num')).strokeWidth] : null })
    if (!at) continue
    reached.add(at[0])
    if (!at[1]?.startsWith('link ')) fail(file, `${at[0]} has no name`)
    if (at[2] !== '4px') fail(file, `${at[0]} does not show that it is focused`)
  }
  if (reached.size !== links) fail(file, `${reached.size} of ${links} links are reached by keyboard`)
  const text = await page.accessibility.snapshot({ interestingOnly: false })
  if (!JSON.stringify(text).includes('Links of the cluster')) fail(file, 'has no name for who does not see it')
  if (shots) await page.pdf({ path: join(shots, `${file}.pdf`), preferCSSPageSize: true, landscape: true })
  for (const s of said) fail(file, `says ${s}`)
  console.log(`looked at ${file}: ${links} links`)
  await page.close()
}

// Mermaid's own parser and renderer.
const page = await browser.newPage()
await page.goto('about:blank')
await page.addScriptTag({ path: new URL('./node_modules/mermaid/dist/mermaid.min.js', import.meta.url).pathname })
for (const file of readdirSync(folder).sort().filter(f => f.endsWith('.mmd'))) {
  const answer = await page.evaluate(async source => {
    try {
      mermaid.initialize({ startOnLoad: false, maxTextSize: 500000 })
      const { svg } = await mermaid.render('m' + Date.now(), source)
      const drawn = new DOMParser().parseFromString(svg, 'text/html')
      return { edges: drawn.querySelectorAll('.edgePaths path').length, text: drawn.body.textContent, scripts: drawn.querySelectorAll('script,img,iframe').length }
    } catch (e) { return { error: String(e) } }
  }, readFileSync(join(folder, file), 'utf8'))
  if (answer.error || !answer.edges) fail(file, answer.error ?? 'has no lines')
  if (answer.scripts) fail(file, 'a name became an element')
  if (/Unsupported markdown/.test(answer.text ?? '')) fail(file, 'a name was taken for Markdown')
  console.log(`mermaid draws ${file}: ${answer.edges} lines`)
}
await browser.close()
process.exit(failed ? 1 : 0)
