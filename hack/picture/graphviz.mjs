// Takes Graphviz, compiled to WebAssembly, out of npm's @viz-js/viz, as
// internal/graphviz embeds it: `make graphviz`. Argument: the file to write.
import { writeFileSync } from 'node:fs'
import { gzipSync, constants } from 'node:zlib'
import { createHash } from 'node:crypto'

const instantiate = WebAssembly.instantiate
WebAssembly.instantiate = function (code, ...rest) {
  const bytes = new Uint8Array(code.buffer ?? code)
  console.log(`${bytes.length} bytes, sha256 ${createHash('sha256').update(bytes).digest('hex')}`)
  writeFileSync(process.argv[2], gzipSync(bytes, { level: constants.Z_BEST_COMPRESSION }))
  return instantiate.call(this, code, ...rest)
}
const { default: load } = await import(new URL('./node_modules/@viz-js/viz/lib/backend.js', import.meta.url))
await load()
