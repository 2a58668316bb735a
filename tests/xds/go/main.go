// A control plane of Envoy's API for tests/xds/run, made of go-control-plane.
//
// It reads commands from standard input, one a line, and answers each with a line "done". Events of
// the streams are lines of JSON before it.
//
//	set {"version": "1", "resources": [{"@type": "...", ...}, ...]}   the resources of every node
//	end TYPE      a stream that asks for this type ends with an error
//	spoil TYPE    the next response of this type has bytes that are no resource of it
//	mend          no more of both
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	_ "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
)

// One group of resources, and one snapshot, for all nodes.
type everyone struct{}

func (everyone) ID(*core.Node) string { return "all" }

// Faults that the test asks for.
type faults struct {
	sync.Mutex
	ends   map[string]bool
	spoils map[string]bool
}

func (f *faults) endsFor(kind string) bool {
	f.Lock()
	defer f.Unlock()
	return f.ends[kind]
}

func (f *faults) spoilsOnce(kind string) bool {
	f.Lock()
	defer f.Unlock()
	spoils := f.spoils[kind]
	delete(f.spoils, kind)
	return spoils
}

var (
	output = bufio.NewWriter(os.Stdout)
	lock   sync.Mutex
)

func say(event map[string]any) {
	line, _ := json.Marshal(event)
	lock.Lock()
	defer lock.Unlock()
	output.Write(append(line, '\n'))
	output.Flush()
}

func short(url string) string { return url[strings.LastIndexByte(url, '.')+1:] }

// Spoils responses on their way out.
type spoiling struct {
	grpc.ServerStream
	faults *faults
}

func (s spoiling) SendMsg(message any) error {
	garbage := []byte("\xff\xff\xff garbage")
	switch m := message.(type) {
	case *discovery.DiscoveryResponse:
		if s.faults.spoilsOnce(short(m.TypeUrl)) {
			bad := &anypb.Any{TypeUrl: m.TypeUrl, Value: garbage}
			message = &discovery.DiscoveryResponse{VersionInfo: m.VersionInfo, Nonce: m.Nonce,
				TypeUrl: m.TypeUrl, Resources: append([]*anypb.Any{bad}, m.Resources...)}
		}
	case *discovery.DeltaDiscoveryResponse:
		if s.faults.spoilsOnce(short(m.TypeUrl)) {
			bad := &discovery.Resource{Name: "spoilt",
				Resource: &anypb.Any{TypeUrl: m.TypeUrl, Value: garbage}}
			message = &discovery.DeltaDiscoveryResponse{SystemVersionInfo: m.SystemVersionInfo,
				Nonce: m.Nonce, TypeUrl: m.TypeUrl, RemovedResources: m.RemovedResources,
				Resources: append([]*discovery.Resource{bad}, m.Resources...)}
		}
	}
	return s.ServerStream.SendMsg(message)
}

func callbacks(f *faults) server.CallbackFuncs {
	refusal := func(url string) error {
		if f.endsFor(short(url)) {
			return status.Errorf(codes.Unimplemented, "no %s here", url)
		}
		return nil
	}
	return server.CallbackFuncs{
		StreamOpenFunc: func(_ context.Context, id int64, _ string) error {
			say(map[string]any{"event": "open", "stream": id})
			return nil
		},
		StreamClosedFunc: func(id int64, _ *core.Node) {
			say(map[string]any{"event": "closed", "stream": id})
		},
		StreamRequestFunc: func(id int64, r *discovery.DiscoveryRequest) error {
			say(map[string]any{"event": "request", "stream": id, "type": short(r.TypeUrl),
				"version": r.VersionInfo, "nonce": r.ResponseNonce, "names": r.ResourceNames,
				"error": r.ErrorDetail.GetMessage(), "node": r.Node.GetId(),
				"cluster": r.Node.GetCluster()})
			return refusal(r.TypeUrl)
		},
		StreamResponseFunc: func(_ context.Context, id int64, _ *discovery.DiscoveryRequest,
			r *discovery.DiscoveryResponse) {
			say(map[string]any{"event": "response", "stream": id, "type": short(r.TypeUrl),
				"version": r.VersionInfo, "nonce": r.Nonce, "resources": len(r.Resources)})
		},
		DeltaStreamOpenFunc: func(_ context.Context, id int64, _ string) error {
			say(map[string]any{"event": "open", "stream": id, "delta": true})
			return nil
		},
		DeltaStreamClosedFunc: func(id int64, _ *core.Node) {
			say(map[string]any{"event": "closed", "stream": id, "delta": true})
		},
		StreamDeltaRequestFunc: func(id int64, r *discovery.DeltaDiscoveryRequest) error {
			say(map[string]any{"event": "request", "stream": id, "type": short(r.TypeUrl),
				"nonce": r.ResponseNonce, "names": r.ResourceNamesSubscribe,
				"unsubscribe": r.ResourceNamesUnsubscribe, "known": r.InitialResourceVersions,
				"error": r.ErrorDetail.GetMessage(), "node": r.Node.GetId(), "delta": true})
			return refusal(r.TypeUrl)
		},
		StreamDeltaResponseFunc: func(id int64, _ *discovery.DeltaDiscoveryRequest,
			r *discovery.DeltaDiscoveryResponse) {
			names := []string{}
			for _, one := range r.Resources {
				names = append(names, one.Name)
			}
			say(map[string]any{"event": "response", "stream": id, "type": short(r.TypeUrl),
				"nonce": r.Nonce, "names": names, "removed": r.RemovedResources, "delta": true})
		},
	}
}

func set(snapshots cache.SnapshotCache, text string) error {
	var wanted struct {
		Version   string
		Resources []json.RawMessage
	}
	if err := json.Unmarshal([]byte(text), &wanted); err != nil {
		return err
	}
	resources := map[resource.Type][]types.Resource{
		resource.ClusterType: {}, resource.EndpointType: {}, resource.ListenerType: {},
		resource.RouteType: {}, resource.SecretType: {},
	}
	for _, one := range wanted.Resources {
		packed := &anypb.Any{}
		if err := protojson.Unmarshal(one, packed); err != nil {
			return err
		}
		message, err := packed.UnmarshalNew()
		if err != nil {
			return err
		}
		resources[packed.TypeUrl] = append(resources[packed.TypeUrl], message)
	}
	snapshot, err := cache.NewSnapshot(wanted.Version, resources)
	if err != nil {
		return err
	}
	return snapshots.SetSnapshot(context.Background(), "all", snapshot)
}

func obey(snapshots cache.SnapshotCache, f *faults, line string) error {
	verb, rest, _ := strings.Cut(line, " ")
	f.Lock()
	defer f.Unlock()
	switch verb {
	case "set":
		return set(snapshots, rest)
	case "end":
		f.ends[rest] = true
	case "spoil":
		f.spoils[rest] = true
	case "mend":
		f.ends, f.spoils = map[string]bool{}, map[string]bool{}
	default:
		return fmt.Errorf("no such command: %s", verb)
	}
	return nil
}

func main() {
	address := flag.String("listen", "127.0.0.1:0", "the address to listen on")
	flag.Parse()
	f := &faults{ends: map[string]bool{}, spoils: map[string]bool{}}
	snapshots := cache.NewSnapshotCache(true, everyone{}, nil)
	spoil := func(all any, s grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		return h(all, spoiling{s, f})
	}
	serving := grpc.NewServer(grpc.StreamInterceptor(spoil))
	discovery.RegisterAggregatedDiscoveryServiceServer(serving,
		server.NewServer(context.Background(), snapshots, callbacks(f)))
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go serving.Serve(listener)
	say(map[string]any{"event": "listening", "port": listener.Addr().(*net.TCPAddr).Port})
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 256<<20)
	for lines.Scan() {
		if err := obey(snapshots, f, lines.Text()); err != nil {
			say(map[string]any{"event": "failed", "why": err.Error()})
		}
		say(map[string]any{"event": "done"})
	}
}
