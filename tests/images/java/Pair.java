import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.HttpURLConnection;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URL;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Executors;

/**
 * Two servers in one process: the outer one on port 8080 of all addresses asks the inner one, on port 9000 of the
 * loopback address that Java chooses, by each of the names in ASK. Every answer tells whom it has reached.
 */
public class Pair {
    static final String REPLICA = System.getenv().getOrDefault("REPLICA", "?");
    static final String[] NAMES = System.getenv().getOrDefault("ASK", "localhost").split(" ");

    public static void main(String[] arguments) throws Exception {
        HttpServer inner = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 9000), 0);
        inner.createContext("/", exchange -> answer(exchange, REPLICA + " at "
            + exchange.getLocalAddress().getAddress().getHostAddress() + " from "
            + exchange.getRemoteAddress().getAddress().getHostAddress()));
        HttpServer outer = HttpServer.create(new InetSocketAddress(8080), 0);
        outer.createContext("/", exchange -> {
            List<String> reached = new ArrayList<>();
            for (String name : NAMES) reached.add(name + ": " + ask(name));
            exchange.getResponseHeaders().set("X-Replica", REPLICA + " asked " + String.join(", ", reached));
            answer(exchange, "");
        });
        for (HttpServer server : List.of(inner, outer)) {
            server.setExecutor(Executors.newFixedThreadPool(4));
            server.start();
        }
    }

    static void answer(HttpExchange exchange, String text) throws IOException {
        byte[] body = text.getBytes();
        exchange.sendResponseHeaders(200, body.length == 0 ? -1 : body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }

    static String ask(String host) {
        try {
            HttpURLConnection connection = (HttpURLConnection) new URL("http://" + host + ":9000/").openConnection();
            connection.setRequestProperty("Connection", "close");
            return new String(connection.getInputStream().readAllBytes());
        } catch (IOException error) {
            return error.getMessage();
        }
    }
}
