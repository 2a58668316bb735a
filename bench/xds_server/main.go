// A control plane of Envoy's API with many generated services, for bench/control_plane. It is made
// of go-control-plane.
//
// The clusters s0, s1, ... have their endpoints by EDS. It reads commands from standard input, one
// a line, and answers each with a line:
//
//	move PORT        the only endpoint of s0 becomes 127.0.0.1:PORT
//	churn N EACH     N changes of one endpoint of other services, EACH (a duration) apart
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
)

func eds(name string) *cluster.Cluster {
	ads := &core.ConfigSource{ResourceApiVersion: core.ApiVersion_V3,
		ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}}}
	return &cluster.Cluster{Name: name, ConnectTimeout: durationpb.New(time.Second),
		ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
		EdsClusterConfig:     &cluster.Cluster_EdsClusterConfig{EdsConfig: ads}}
}

func at(host string, port uint32) *endpoint.LbEndpoint {
	socket := &core.SocketAddress{Address: host,
		PortSpecifier: &core.SocketAddress_PortValue{PortValue: port}}
	address := &core.Address{Address: &core.Address_SocketAddress{SocketAddress: socket}}
	return &endpoint.LbEndpoint{HostIdentifier: &endpoint.LbEndpoint_Endpoint{
		Endpoint: &endpoint.Endpoint{Address: address}}}
}

func assignment(name string, all ...*endpoint.LbEndpoint) *endpoint.ClusterLoadAssignment {
	return &endpoint.ClusterLoadAssignment{ClusterName: name,
		Endpoints: []*endpoint.LocalityLbEndpoints{{LbEndpoints: all}}}
}

// The endpoints of the service with this number. The first one changes with the version.
func generated(number, each, version int) *endpoint.ClusterLoadAssignment {
	all := []*endpoint.LbEndpoint{}
	for index := range each {
		serial := number*each + index
		port := uint32(8000)
		if index == 0 {
			port += uint32(version % 50000)
		}
		all = append(all, at(fmt.Sprintf("10.%d.%d.%d", serial>>16&255, serial>>8&255, serial&255), port))
	}
	return assignment(fmt.Sprintf("s%d", number), all...)
}

func main() {
	address := flag.String("listen", "127.0.0.1:0", "the address to listen on")
	services := flag.Int("services", 10000, "the number of services")
	each := flag.Int("endpoints", 10, "the number of endpoints of each")
	port := flag.Uint("port", 80, "the port of the only endpoint of s0")
	flag.Parse()
	clusters, endpoints := map[string]types.Resource{}, map[string]types.Resource{}
	for number := range *services {
		name := fmt.Sprintf("s%d", number)
		clusters[name], endpoints[name] = eds(name), generated(number, *each, 0)
	}
	endpoints["s0"] = assignment("s0", at("127.0.0.1", uint32(*port)))
	moving := cache.NewLinearCache(resource.EndpointType, cache.WithInitialResources(endpoints))
	all := &cache.MuxCache{
		Classify:      func(r *cache.Request) string { return r.TypeUrl },
		ClassifyDelta: func(r *cache.DeltaRequest) string { return r.TypeUrl },
		Caches: map[string]cache.Cache{
			resource.ClusterType:  cache.NewLinearCache(resource.ClusterType, cache.WithInitialResources(clusters)),
			resource.EndpointType: moving,
			resource.ListenerType: cache.NewLinearCache(resource.ListenerType),
			resource.RouteType:    cache.NewLinearCache(resource.RouteType),
			resource.SecretType:   cache.NewLinearCache(resource.SecretType),
		},
	}
	serving := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(serving,
		server.NewServer(context.Background(), all, server.CallbackFuncs{}))
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go serving.Serve(listener)
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for version := 1; lines.Scan(); {
		var to, count int
		var pause string
		if _, err := fmt.Sscanf(lines.Text(), "move %d", &to); err == nil {
			moving.UpdateResource("s0", assignment("s0", at("127.0.0.1", uint32(to))))
		} else if _, err := fmt.Sscanf(lines.Text(), "churn %d %s", &count, &pause); err == nil {
			apart, _ := time.ParseDuration(pause)
			next := time.Now()
			for range count {
				number := 1 + version*7919%(*services-1)
				moving.UpdateResource(fmt.Sprintf("s%d", number), generated(number, *each, version))
				version++
				next = next.Add(apart)
				time.Sleep(time.Until(next))
			}
		}
		fmt.Println("done")
	}
}
