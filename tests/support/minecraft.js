// A Minecraft server at one port, and a player who reaches it by another; each says what happens, a line at a time.
//
//     node minecraft.js SERVER_PORT PLAYER_PORT HOST
//
// The status first, asked for by address, then the game, by the name HOST, in which the server writes to the chat twice a second.
const minecraft = require('minecraft-protocol')

const [serverPort, port, fakeHost] = [+process.argv[2], +process.argv[3], process.argv[4]]
const host = '127.0.0.1'
const version = '1.19.2'
const say = (...words) => console.log(words.join(' '))

const server = minecraft.createServer({ host, port: serverPort, version, 'online-mode': false, motd: 'awake', checkTimeoutInterval: 60000 })
server.on('playerJoin', (client) => {
  client.write('login', {
    ...require('minecraft-data')(version).loginPacket,
    entityId: client.id
  })
  let count = 0
  setInterval(() => client.write('system_chat', { content: JSON.stringify({ text: `${count++}` }), isActionBar: false }), 500)
})
server.on('listening', () => say('listening'))

process.stdin.once('data', () => {
  minecraft.ping({ host, port, version }, (error, status) => {
    say('status', error ? error.message : JSON.stringify(status.description))
    const player = minecraft.createClient({ host, port, version, fakeHost, username: 'alex', auth: 'offline', checkTimeoutInterval: 60000 })
    player.on('login', () => say('playing'))
    player.on('system_chat', (packet) => say('heard', JSON.parse(packet.content).text))
    player.on('end', (reason) => say('ended', reason))
    player.on('error', (error) => say('error', error.message))
  })
})
