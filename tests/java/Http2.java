import java.io.ByteArrayInputStream;
import java.io.FileInputStream;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.net.http.WebSocket;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** Java's HttpClient against an edge. In: the origin, the authority's PEM file. Out: a line for each case. */
public class Http2 {
    public static void main(String[] args) throws Exception {
        String origin = args[0];
        HttpClient client = HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_2)
            .sslContext(trusting(args[1]))
            .build();
        print("hello", client.send(to(origin + "/hello").build(), BodyHandlers.ofString()));
        byte[] body = "0123456789".repeat(30_000).getBytes();
        HttpRequest known = to(origin + "/echo").POST(BodyPublishers.ofByteArray(body)).build();
        print("length", client.send(known, BodyHandlers.ofString()));
        HttpRequest streamed = to(origin + "/echo")
            .POST(BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body)))
            .build();
        print("streamed", client.send(streamed, BodyHandlers.ofString()));
        HttpRequest expects = to(origin + "/echo")
            .expectContinue(true)
            .POST(BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body)))
            .build();
        print("expects", client.send(expects, BodyHandlers.ofString()));
        HttpRequest refused = to(origin + "/no-such-path")
            .expectContinue(true)
            .POST(BodyPublishers.ofByteArray(body))
            .build();
        print("refused", client.send(refused, BodyHandlers.ofString()));
        HttpRequest events = to(origin + "/sse?n=20&every=5").build();
        try (InputStream in = client.send(events, BodyHandlers.ofInputStream()).body()) {
            System.out.println("events " + new String(in.readAllBytes()).split("\n\n").length);
        }
        CompletableFuture<?>[] many = IntStream.range(0, 50)
            .mapToObj(n -> client.sendAsync(to(origin + "/hello").build(), BodyHandlers.ofString()))
            .toArray(CompletableFuture[]::new);
        CompletableFuture.allOf(many).get(20, TimeUnit.SECONDS);
        System.out.println("many " + many.length);
        System.out.println("websocket " + websocket(client, origin.replace("https", "wss")));
    }

    static HttpRequest.Builder to(String uri) {
        return HttpRequest.newBuilder(URI.create(uri));
    }

    static void print(String what, HttpResponse<String> answer) {
        System.out.println(what + " " + answer.version() + " " + answer.statusCode() + " " + answer.body().length());
    }

    static String websocket(HttpClient client, String origin) throws Exception {
        CompletableFuture<String> echo = new CompletableFuture<>();
        WebSocket.Listener hears = new WebSocket.Listener() {
            @Override
            public CompletionStage<?> onText(WebSocket socket, CharSequence text, boolean last) {
                echo.complete(text.toString());
                return null;
            }
        };
        WebSocket socket = client.newWebSocketBuilder()
            .buildAsync(URI.create(origin + "/ws/echo"), hears)
            .get(20, TimeUnit.SECONDS);
        socket.sendText("hello", true);
        return echo.get(20, TimeUnit.SECONDS);
    }

    static SSLContext trusting(String pem) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (InputStream in = new FileInputStream(pem)) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(in));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }
}
