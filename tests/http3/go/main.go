// quic-go as a client of HTTP/3: `http3-go URL`. It checks the messages of tests/http3/origin.py.
// `http3-go bodies URL LENGTH SHA-256` compares a body of this length, down and up, with its digest.
// As an endpoint: `http3-go serve ADDRESS CERTIFICATE KEY` answers some of the same paths.
package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go/http3"
)

func check(what string, found, wanted any) {
	if found != wanted {
		fmt.Printf("%s: %v instead of %v\n", what, found, wanted)
		os.Exit(1)
	}
}

func body(client *http.Client, request *http.Request) (*http.Response, []byte) {
	response, err := client.Do(request)
	if err != nil {
		fmt.Println(request.URL, err)
		os.Exit(1)
	}
	defer response.Body.Close()
	bytes, err := io.ReadAll(response.Body)
	if err != nil {
		fmt.Println(request.URL, err)
		os.Exit(1)
	}
	return response, bytes
}

func get(client *http.Client, url string) (*http.Response, []byte) {
	request, _ := http.NewRequest("GET", url, nil)
	return body(client, request)
}

func serve(address, certificate, key string) {
	mux := http.NewServeMux()
	mux.HandleFunc("/bytes/{length}", func(out http.ResponseWriter, in *http.Request) {
		length, _ := strconv.Atoi(in.PathValue("length"))
		out.Header().Set("content-length", strconv.Itoa(length))
		out.Write(bytes.Repeat([]byte("x"), length))
	})
	mux.HandleFunc("/sum", func(out http.ResponseWriter, in *http.Request) {
		digest := sha256.New()
		length, err := io.Copy(digest, in.Body)
		if err == nil {
			fmt.Fprintf(out, "%d %x", length, digest.Sum(nil))
		}
	})
	mux.HandleFunc("/trailers", func(out http.ResponseWriter, in *http.Request) {
		out.Header().Set("trailer", "x-sum")
		io.WriteString(out, "hello")
		out.Header().Set("x-sum", "7")
	})
	mux.HandleFunc("/", func(out http.ResponseWriter, in *http.Request) { io.WriteString(out, in.URL.Path) })
	server := &http3.Server{Addr: address, Handler: mux}
	fmt.Println(server.ListenAndServeTLS(certificate, key))
	os.Exit(1)
}

func bodies(base, length, digest string) {
	transport := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	client := &http.Client{Transport: transport, Timeout: 3 * time.Minute}
	_, down := get(client, base+"/bytes/"+length)
	check("down", fmt.Sprintf("%d %x", len(down), sha256.Sum256(down)), length+" "+digest)
	request, _ := http.NewRequest("POST", base+"/sum", bytes.NewReader(down))
	_, up := body(client, request)
	check("up", string(up), length+" "+digest)
	transport.Close()
}

func main() {
	if os.Args[1] == "serve" {
		serve(os.Args[2], os.Args[3], os.Args[4])
	}
	if os.Args[1] == "bodies" {
		bodies(os.Args[2], os.Args[3], os.Args[4])
		return
	}
	base := os.Args[1]
	transport := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	response, text := get(client, base+"/hello")
	check("GET", string(text), "/hello")
	check("version", response.Proto, "HTTP/3.0")
	request, _ := http.NewRequest("HEAD", base+"/bytes/70000", nil)
	response, text = body(client, request)
	check("HEAD", response.ContentLength, int64(70000))
	check("HEAD", len(text), 0)
	upload := bytes.Repeat([]byte("0123456789"), 300_000)
	request, _ = http.NewRequest("POST", base+"/sum", bytes.NewReader(upload))
	_, text = body(client, request)
	check("POST", string(text), fmt.Sprintf("%d %x", len(upload), sha256.Sum256(upload)))
	// Without a length.
	request, _ = http.NewRequest("POST", base+"/sum", io.MultiReader(bytes.NewReader(upload)))
	_, text = body(client, request)
	check("POST without a length", strings.Fields(string(text))[0], fmt.Sprint(len(upload)))
	response, text = get(client, base+"/trailers")
	check("trailers", string(text)+response.Trailer.Get("x-sum"), "hello7")
	_, text = get(client, base+"/hints")
	check("103", string(text), "hinted")
	var all sync.WaitGroup
	for n := range 100 {
		all.Add(1)
		go func() {
			defer all.Done()
			_, text := get(client, fmt.Sprintf("%s/bytes/%d", base, 10_000+n))
			check("100 streams", len(text), 10_000+n)
		}()
	}
	all.Wait()
	transport.Close()
	fmt.Println("GET, HEAD, POST, trailers, 103, 100 streams")
}
