import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;

/** The JDK's own server; every answer names its replica. */
public class Server {
    public static void main(String[] arguments) throws Exception {
        String replica = System.getenv().getOrDefault("REPLICA", "?");
        byte[] body = ("replica " + replica + "\n").getBytes();
        HttpServer server = HttpServer.create(new InetSocketAddress(8080), 0);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.createContext("/", exchange -> {
            exchange.getResponseHeaders().set("X-Replica", replica);
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        // SIGTERM: what is being answered gets a second.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> server.stop(1)));
        server.start();
    }
}
