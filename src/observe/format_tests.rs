use super::*;
use crate::error::Flag;
use crate::net::Address;
use crate::observe::HeaderCopy;

/// A record of a request for `target`.
pub fn record<'a>(target: &'a [u8], endpoint: &'a Address) -> Record<'a> {
    Record {
        began_unix_us: 1_700_000_000_123_456,
        duration_us: 2_500,
        endpoint_duration_us: Some(1_900),
        attempts: 1,
        listener: "web",
        route: "r",
        place: "a.yaml:3",
        service: "s",
        endpoint: Some(endpoint),
        identity: "",
        policy: "",
        suppressed: 0,
        peer: Some("10.0.0.9:5".parse().unwrap()),
        client: Some("2001:db8::1".parse().unwrap()),
        original: None,
        method: b"GET",
        authority: b"a.b",
        target,
        path: target.split(|&byte| byte == b'?').next().unwrap_or_default(),
        protocol: "HTTP/1.1",
        scheme: "http",
        status: 503,
        tunnel: false,
        failed: true,
        grpc_status: None,
        delayed: false,
        flag: Some(Flag::NoHealthyUpstream),
        detail: "d",
        request_body: b"",
        response_body: b"",
        bodies_ended: [false; 2],
        received_bytes: 1,
        sent_bytes: 2,
        request_id: b"id",
        user_agent: b"",
        forwarded_for: b"",
        trace_id: "",
        request_headers: None,
        response_headers: None,
    }
}

fn endpoint() -> Address {
    Address::Tcp("10.0.0.1:80".parse().unwrap())
}

fn line(format: &str, record: &Record<'_>) -> String {
    let mut out = Vec::new();
    Format::parse(format).unwrap().write_line(&mut out, record);
    let line = String::from_utf8(out).unwrap();
    line.strip_suffix('\n').unwrap().to_owned()
}

#[test]
fn the_text_line_is_envoys() {
    let expected = "[2023-11-14T22:13:20.123Z] \"GET /a\\x22\\x0a\\xff HTTP/1.1\" 503 UH 1 2 2 1 \
                    \"-\" \"-\" \"id\" \"a.b\" \"10.0.0.1:80\"";
    for format in ["text", "envoy"] {
        assert_eq!(line(format, &record(b"/a\"\n\xff", &endpoint())), expected);
    }
    let istio = line("istio", &record(b"/a", &endpoint()));
    assert_eq!(
        istio,
        "[2023-11-14T22:13:20.123Z] \"GET /a HTTP/1.1\" 503 UH d - \"-\" 1 2 2 1 \"-\" \"-\" \
         \"id\" \"a.b\" \"10.0.0.1:80\" s - - 2001:db8::1:0 - r"
    );
}

#[test]
fn operators_of_envoy() {
    let (mut request, mut response) = (HeaderCopy::default(), HeaderCopy::default());
    request.push(b"x-user", b"j\"\x01s\xff");
    response.push(b"content-type", b"text/html");
    let address = endpoint();
    let it = Record {
        request_headers: Some(&request),
        response_headers: Some(&response),
        grpc_status: Some(14),
        peer: Some("[2001:db8::1]:7".parse().unwrap()),
        ..record(b"/a?b", &address)
    };
    for (format, expected) in [
        ("%%%RESPONSE_CODE%%%", "%503%"),
        ("a %PROTOCOL% b", "a HTTP/1.1 b"),
        ("%REQ(X-USER)%", "j\\x22\\x01s\\xff"),
        ("%REQ(X-USER):3%", "j"),
        ("%REQ(X-USER):5%", "j\\x22"),
        ("%REQ(X-ABSENT?X-USER):1%", "j"),
        ("%REQ(X-ABSENT)%", "-"),
        ("%RESP(CONTENT-TYPE)%", "text/html"),
        ("%RESP(CONTENT-TYPE?:STATUS)%", "text/html"),
        ("%START_TIME(%Y/%m/%dT%H:%M:%S.%6f%z %s)%", "2023/11/14T22:13:20.123456+0000 1700000000"),
        ("%START_TIME(%b %F %T %j)%", "Nov 2023-11-14 22:13:20 318"),
        ("%UPSTREAM_CLUSTER% %ROUTE_NAME% %UPSTREAM_HOST%", "s r 10.0.0.1:80"),
        ("%DURATION% %RESPONSE_DURATION% %duration_us%", "2 1 2500"),
        ("%GRPC_STATUS% %GRPC_STATUS_NUMBER%", "UNAVAILABLE 14"),
        ("%DOWNSTREAM_REMOTE_ADDRESS%", "[2001:db8::1]:7"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "2001:db8::1"),
        ("%route_place% %path% %failed%", "a.yaml:3 /a true"),
        ("%REQUESTED_SERVER_NAME%", "-"),
        ("%request.headers.x-user%", "j\\x22\\x01s\\xff"),
    ] {
        assert_eq!(line(format, &it), expected, "{format}");
    }
    let wanted = Format::parse("%REQ(X-A?X-B)% %RESP(X-C)% %REQ(:PATH)%").unwrap().wanted();
    assert_eq!(
        (wanted.request.join(","), wanted.response.join(",")),
        ("x-a,x-b".into(), "x-c".into())
    );
}

#[test]
fn mistakes_in_formats() {
    for (format, at, message) in [
        ("clf", 0, "there is no format \"clf\""),
        ("a %RESPONSE_CODE", 2, "this operator has no end: %RESPONSE_CODE"),
        ("a %RESPONSE_KODE%", 2, "there is no operator %RESPONSE_KODE%"),
        ("%REQ%", 0, "%REQ% needs the name of a field"),
        ("%REQ(a b)%", 0, "\"a b\" is not the name of a header field"),
        (
            "%REQ(Authorization)%",
            0,
            "Authorization may carry a secret, so no log and no trace has it",
        ),
        ("%REQ(x?Cookie)%", 0, "Cookie may carry a secret, so no log and no trace has it"),
        (
            "%request.headers.authorization%",
            0,
            "authorization may carry a secret, so no log and no trace has it",
        ),
        (
            "-%response.headers.Set-Cookie%",
            1,
            "set-cookie may carry a secret, so no log and no trace has it",
        ),
        ("%DURATION(x)%", 0, "%DURATION% takes no argument"),
        ("%REQ(x):0%", 0, "\"0\" is not a length"),
        ("%START_TIME(%Q)%", 0, "\"%Q\" is not a format for times"),
        ("100% of it", 3, "this operator has no end: % of it"),
        ("%DURATION%\nx", 10, "a line of the access log has no line breaks and control characters"),
    ] {
        let error = Format::parse(format).unwrap_err();
        assert_eq!((error.message.as_str(), error.at), (message, at), "{format}");
    }
    let (index, error) = Format::chosen(["status", "request.headers.cookie"]).unwrap_err();
    assert_eq!((index, error.message.contains("secret")), (1, true));
    assert_eq!(Format::chosen(["codes"]).unwrap_err().0, 0);
    let (index, error) = Format::chosen(["status", "flags", "response_flags"]).unwrap_err();
    assert_eq!((index, error.help.as_str()), (2, "leave it out"));
}

#[test]
fn a_delay_has_its_flag_beside_the_other() {
    let address = endpoint();
    for (delayed, flag, expected) in [
        (false, None, "-"),
        (true, None, "DI"),
        (true, Some(Flag::UpstreamTimeout), "DI,UT"),
        (false, Some(Flag::FaultInjected), "FI"),
    ] {
        assert_eq!(Record { delayed, flag, ..record(b"/", &address) }.flags(), expected);
    }
}

#[test]
fn the_json_line_is_json_whatever_a_client_sent() {
    let odd = Address::Unix("/tmp/a\"\n\\b".into());
    let mut out = Vec::new();
    Format::JSON.write_line(&mut out, &record(b"/\"\\\n\xff\0", &odd));
    assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1);
    let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(line["time"], "2023-11-14T22:13:20.123Z");
    assert_eq!(line["target"], "/\"\\\n\u{fffd}\0");
    assert_eq!((&line["status"], &line["endpoint_duration_us"]), (&503.into(), &1900.into()));
    assert_eq!((&line["peer"], &line["client"]), (&"10.0.0.9:5".into(), &"2001:db8::1".into()));
    assert_eq!(line["endpoint"], odd.to_string());
    assert_eq!(line["response_flags"], "UH");
}

#[test]
fn a_json_line_with_chosen_fields_has_only_these() {
    let mut request = HeaderCopy::default();
    request.push(b"x-tenant", b"\xff\"");
    let address = endpoint();
    let it = Record { request_headers: Some(&request), ..record(b"/\x01?q", &address) };
    let names = [
        "status",
        "path",
        "request.headers.x-tenant",
        "grpc_status",
        "duration",
        "flags",
        "failed",
    ];
    let mut out = Vec::new();
    Format::chosen(names).unwrap().write_line(&mut out, &it);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "{\"status\":503,\"path\":\"/\\u0001\",\"request.headers.x-tenant\":\"\u{fffd}\\\"\",\
         \"grpc_status\":null,\"duration\":2.500,\"response_flags\":\"UH\",\"failed\":true}\n"
    );
}
