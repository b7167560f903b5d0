// The Node peer: ws. Speaks what worker.py speaks: `node worker.mjs client|server JSON`.

import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import { createInterface } from 'node:readline'
import { WebSocket, WebSocketServer } from 'ws'

const [role, text] = process.argv.slice(2)
const options = JSON.parse(text)
const payload = readFileSync(options.payload_file)
const message = options.text ? payload.toString() : payload
const maxPayload = 2 ** 20 + 1

function serve() {
  const settings = { perMessageDeflate: options.deflate, maxPayload, clientTracking: true }
  let server = null
  if (options.certificate) {
    const key = readFileSync(options.key)
    server = createServer({ cert: readFileSync(options.certificate), key })
    server.listen(0, '127.0.0.1')
    settings.server = server
  } else {
    Object.assign(settings, { host: '127.0.0.1', port: 0, backlog: 4096 })
  }
  const listener = new WebSocketServer(settings)
  ;(server ?? listener).on('listening', () => {
    console.log('ready', (server ?? listener).address().port)
  })
  listener.on('connection', (socket) => {
    socket.on('error', () => {})
    socket.on('message', (data, binary) => {
      if (options.mode === 'echo') socket.send(data, { binary })
      else if (options.mode === 'source') for (let i = Number(data); i > 0; i--) socket.send(message)
      else if (options.mode === 'broadcast') for (const other of listener.clients) other.send(message)
      else if (!binary && data.length === 4) socket.send('ok')
    })
  })
  process.stdin.on('end', () => process.exit())
  process.stdin.resume()
}

let socket = null
let onMessage = null

function dial() {
  const scheme = options.authority ? 'wss' : 'ws'
  const host = options.authority ? 'localhost' : '127.0.0.1'
  const connection = new WebSocket(`${scheme}://${host}:${options.port}/`, {
    ca: options.authority ? readFileSync(options.authority) : undefined,
    perMessageDeflate: options.deflate,
    maxPayload
  })
  return new Promise((resolve, reject) => {
    connection.on('error', reject)
    connection.on('open', () => resolve(connection))
  })
}

// Receive `count` messages; a text becomes a string, as an application would have it.
function received(count, next) {
  return new Promise((resolve) => {
    onMessage = (data, binary) => {
      const reply = binary ? data : data.toString()
      if (--count === 0) resolve(reply)
      else if (next) next()
    }
  })
}

function expect(got, wanted) {
  const same = Buffer.isBuffer(wanted) ? Buffer.isBuffer(got) && wanted.equals(got) : got === wanted
  if (!same) throw new Error('wrong message')
}

const commands = {
  async open() {
    socket = await dial()
    socket.on('message', (data, binary) => onMessage(data, binary))
  },
  async close() {
    socket.close()
  },
  async echo(count) {
    const next = () => socket.send(message)
    const done = received(count, next)
    next()
    expect(await done, message)
  },
  async receive(count) {
    const done = received(count, null)
    socket.send(String(count))
    expect(await done, message)
  },
  async send(count) {
    const done = received(1, null)
    for (let i = 0; i < count; i++) {
      // Wait where an application would have to: ws itself buffers without a bound.
      if (socket.bufferedAmount < 2 ** 20) socket.send(message)
      else await new Promise((resolve) => socket.send(message, resolve))
    }
    socket.send('done')
    expect(await done, 'ok')
  },
  async handshake(count) {
    for (let i = 0; i < count; i++) {
      const connection = await dial()
      await new Promise((resolve) => {
        connection.on('close', resolve)
        connection.close()
      })
    }
  }
}

async function obey() {
  for await (const line of createInterface({ input: process.stdin })) {
    const [command, count] = line.split(' ')
    const start = process.hrtime.bigint()
    try {
      await commands[command](Number(count))
      console.log('ok', String(process.hrtime.bigint() - start))
    } catch (error) {
      console.log('error', String(error).replaceAll('\n', ' '))
    }
  }
  process.exit()
}

if (role === 'server') serve()
else await obey()
