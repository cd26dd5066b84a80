const http = require("node:http");

const server = http.createServer((_, response) => response.end(`replica ${process.env.REPLICA}\n`));
server.listen({ port: 3000, host: "0.0.0.0", reusePort: true });

// Take no more connections, answer what is there, and end.
process.on("SIGTERM", () => server.close());
