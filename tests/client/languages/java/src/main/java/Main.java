import com.google.protobuf.ByteString;
import com.google.protobuf.Struct;
import com.google.protobuf.Value;
import io.grpc.ManagedChannelBuilder;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import vecgate.v1.DataObject;
import vecgate.v1.EmbedInputsRequest;
import vecgate.v1.EmbeddingServiceGrpc;
import vecgate.v1.Image;
import vecgate.v1.ImportObjectsRequest;
import vecgate.v1.Input;
import vecgate.v1.NearText;
import vecgate.v1.ObjectServiceGrpc;
import vecgate.v1.SearchObjectsRequest;
import vecgate.v1.SearchServiceGrpc;
import vecgate.v1.Vector;

/** Embeds a text and an image, imports both and searches: ADDRESS IMAGE. */
final class Main {
  public static void main(String[] arguments) throws Exception {
    var channel =
        ManagedChannelBuilder.forTarget(arguments[0]).usePlaintext().maxInboundMessageSize(64 << 20).build();
    var image = Image.newBuilder().setContent(ByteString.copyFrom(Files.readAllBytes(Path.of(arguments[1])))).build();

    var embedded =
        EmbeddingServiceGrpc.newBlockingStub(channel)
            .embedInputs(
                EmbedInputsRequest.newBuilder()
                    .addInputs(Input.newBuilder().setText("a dog"))
                    .addInputs(Input.newBuilder().setImage(image))
                    .build());
    var vectors = new ArrayList<String>();
    for (var result : embedded.getResultsList()) {
      vectors.add(Arrays.toString(floats(result.getEmbedding().getVector())));
    }

    var title = Value.newBuilder().setStringValue("a dog").build();
    var object =
        DataObject.newBuilder()
            .setProperties(Struct.newBuilder().putFields("title", title))
            .putImages("image", image)
            .build();
    var imported =
        ObjectServiceGrpc.newBlockingStub(channel)
            .importObjects(ImportObjectsRequest.newBuilder().setCollection("Pictures").addObjects(object).build());
    for (var result : imported.getResultsList()) {
      if (result.hasError()) throw new IllegalStateException(result.getError().getMessage());
    }

    var searched =
        SearchServiceGrpc.newBlockingStub(channel)
            .searchObjects(
                SearchObjectsRequest.newBuilder()
                    .setCollection("Pictures")
                    .setNearText(NearText.newBuilder().addConcepts("a dog"))
                    .setLimit(1)
                    .build());

    var stored = imported.getResultsList().stream().map(each -> quoted(each.getId())).toList();
    var found = searched.getHitsList().stream().map(each -> quoted(each.getObject().getId())).toList();
    System.out.printf("{\"vectors\": %s, \"stored\": %s, \"found\": %s}%n", vectors, stored, found);
    channel.shutdown();
  }

  /** Reads a vector: little-endian float32, one after the other. */
  private static float[] floats(Vector vector) {
    var buffer = vector.getData().asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer();
    var values = new float[buffer.remaining()];
    buffer.get(values);
    return values;
  }

  private static String quoted(String text) {
    return '"' + text + '"';
  }
}
