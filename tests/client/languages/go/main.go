// Embeds a text and an image, imports both and searches: ADDRESS IMAGE
package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"log"
	"math"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"

	pb "smoke/generated/vecgate/v1"
)

type report struct {
	Vectors [][]float32 `json:"vectors"`
	Stored  []string    `json:"stored"`
	Found   []string    `json:"found"`
}

func main() {
	address, file := os.Args[1], os.Args[2]
	connection, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	check(err)
	defer connection.Close()
	content, err := os.ReadFile(file)
	check(err)
	image := &pb.Image{Content: content}
	ctx := context.Background()
	var seen report

	embedded, err := pb.NewEmbeddingServiceClient(connection).EmbedInputs(ctx, &pb.EmbedInputsRequest{Inputs: []*pb.Input{
		{Content: &pb.Input_Text{Text: "a dog"}},
		{Content: &pb.Input_Image{Image: image}},
	}})
	check(err)
	for _, result := range embedded.Results {
		seen.Vectors = append(seen.Vectors, floats(result.GetEmbedding().Vector))
	}

	properties, err := structpb.NewStruct(map[string]any{"title": "a dog"})
	check(err)
	imported, err := pb.NewObjectServiceClient(connection).ImportObjects(ctx, &pb.ImportObjectsRequest{
		Collection: "Pictures",
		Objects:    []*pb.DataObject{{Properties: properties, Images: map[string]*pb.Image{"image": image}}},
	})
	check(err)
	for _, result := range imported.Results {
		if failed := result.GetError(); failed != nil {
			log.Fatal(failed.Message)
		}
		seen.Stored = append(seen.Stored, result.Id)
	}

	searched, err := pb.NewSearchServiceClient(connection).SearchObjects(ctx, &pb.SearchObjectsRequest{
		Collection: "Pictures",
		Query:      &pb.SearchObjectsRequest_NearText{NearText: &pb.NearText{Concepts: []string{"a dog"}}},
		Limit:      1,
	})
	check(err)
	for _, hit := range searched.Hits {
		seen.Found = append(seen.Found, hit.Object.Id)
	}
	check(json.NewEncoder(os.Stdout).Encode(seen))
}

// floats reads a vector: little-endian float32, one after the other.
func floats(vector *pb.Vector) []float32 {
	values := make([]float32, len(vector.Data)/4)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(vector.Data[4*i:]))
	}
	return values
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
