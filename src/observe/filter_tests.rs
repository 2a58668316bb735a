use super::*;
use crate::error::Flag;
use crate::observe::format::tests::record;
use crate::observe::{HeaderCopy, TextError};

#[test]
fn filters_accept_exchanges() {
    let (mut request, mut response) = (HeaderCopy::default(), HeaderCopy::default());
    request.push(b"X-Tenant", b"blue");
    request.push(b"User-Agent", b"curl/8");
    response.push(b"content-type", b"text/html");
    let address = crate::net::Address::Tcp("10.0.0.1:80".parse().unwrap());
    let record = Record {
        request_headers: Some(&request),
        response_headers: Some(&response),
        ..record(b"/api/v1?x=1", &address)
    };
    let expected = [
        ("status == 503", true),
        ("status >= 500 or duration > 250ms", true),
        ("status < 500 or duration > 250ms", false),
        ("duration > 2ms and duration <= 2500us", true),
        ("not (status == 503)", false),
        ("!(status == 503) || failed", true),
        ("not not failed", true),
        ("failed == true && tunnel == false", true),
        ("method == \"GET\"", true),
        ("method in ['POST', \"GET\"]", true),
        ("method != 'GET'", false),
        ("path == '/api/v1'", true),
        ("target ends_with 'x=1'", true),
        ("path starts_with \"/api\" and host == 'a.b'", true),
        ("path contains 'v2'", false),
        ("route == 'r' and service == 's' and listener == 'web'", true),
        ("endpoint == \"10.0.0.1:80\"", true),
        ("source in ['10.0.0.0/8']", false),
        ("source in ['10.0.0.0/8', '2001:db8::/32']", true),
        ("source == '2001:db8::1'", true),
        ("response_flags contains 'UH'", true),
        ("flags == 'UH' and flags != '-'", true),
        ("flags in ['UF', 'UO']", false),
        ("flags contains '-'", false),
        ("sent_bytes < 1MB and sent_bytes < 1MiB", true),
        ("detail contains \"d\"", true),
        ("grpc_status == 14", false),
        ("grpc_status != 14", true),
        ("identity == ''", true),
        ("sent_bytes > 1 and received_bytes < 1KiB", true),
        ("request.headers.x-tenant == 'blue'", true),
        ("request.headers[\"X-Tenant\"] == 'blue'", true),
        ("request.headers.user-agent contains 'curl'", true),
        ("request.headers.absent == ''", false),
        ("not (request.headers.absent contains '')", true),
        ("response.headers.content-type starts_with 'text/'", true),
        ("status == 1 or status == 2 and failed", false),
        ("(status == 1 or status == 503) and failed", true),
        ("path == '/it\\'s' or user_agent == ''", true),
    ];
    for (text, accepted) in expected {
        let filter = Filter::parse(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        assert_eq!(filter.accepts(&record), accepted, "{text}");
    }
    let wanted = Filter::parse("request.headers.b == '' or not response.headers.a == ''").unwrap();
    let names = |names: &[Box<str>]| names.join(",");
    assert_eq!(names(&wanted.wanted().request), "b");
    assert_eq!(names(&wanted.wanted().response), "a");
}

#[test]
fn mistakes_have_a_place_and_advice() {
    let expected = [
        ("", 0, "the filter is empty"),
        ("status", 0, "status is compared with nothing"),
        ("status = 500", 7, "`=` is not a part of a filter"),
        ("status == \"500\"", 10, "status is a number, and \"500\" is not"),
        ("status > 5xx", 9, "status is a number, and `5xx` is not"),
        ("path == /api", 8, "`/` is not a part of a filter"),
        ("method == GET", 10, "method is text, and `GET` is not"),
        ("duration > 250", 11, "duration is a length of time, and `250` is not"),
        ("method > 'A'", 9, "method is not a number, so nothing is more or less"),
        ("response.code >= 400", 0, "there is no value \"response.code\""),
        ("stauts == 1", 0, "there is no value \"stauts\""),
        ("status == 1 status == 2", 12, "`status` after a complete condition"),
        ("(status == 1", 12, "a `(` is not closed"),
        ("status == 1)", 11, "this `)` closes nothing"),
        ("status in 5", 10, "`in` needs a list"),
        ("status in [5 6]", 13, "`in` needs a list"),
        ("source == '10.0.0.0/40'", 10, "\"10.0.0.0/40\" is not a range of IP addresses"),
        ("flags contains 'XX'", 15, "\"XX\" is not a response flag"),
        ("status contains '5'", 16, "`contains` is for text, and status is no text"),
        ("path contains x", 14, "`contains` needs a text in quotes"),
        ("request.headers == 'a'", 16, "request.headers needs the name of a header field"),
        ("path == 'a", 8, "this text has no end: 'a"),
        ("status ==", 9, "status is compared with nothing"),
        ("and", 0, "there is no value \"and\""),
        ("status == 1 and", 15, "a condition is missing here"),
        (
            "status == 99999999999999999999",
            10,
            "status is a number, and `99999999999999999999` is not",
        ),
    ];
    for (text, at, message) in expected {
        let TextError { at: place, message: told, help } = Filter::parse(text).unwrap_err();
        assert_eq!((told.as_str(), place), (message, at), "{text}");
        assert!(!help.is_empty());
    }
    let deep = format!("{}status == 1{}", "(".repeat(2000), ")".repeat(2000));
    assert!(Filter::parse(&deep).unwrap_err().message.contains("levels deep"));
    assert!(Filter::parse(&"x".repeat(5000)).unwrap_err().message.contains("4096"));
    for (text, help) in [
        ("response.code >= 400", "write `status`"),
        ("stauts == 1", "write `status`"),
        ("error", "write `failed`"),
        ("duration > 250", "write 250ms, or 250s"),
        ("method == GET", "write it in quotes: \"GET\""),
        ("headers.x == 1", "write request.headers.NAME or response.headers.NAME"),
    ] {
        assert_eq!(Filter::parse(text).unwrap_err().help, help);
    }
}

#[test]
fn no_text_makes_the_parser_panic() {
    let pieces = [
        "status",
        "==",
        "(",
        ")",
        "not",
        "and",
        "or",
        "'a'",
        "\"",
        "5",
        "ms",
        "[",
        "]",
        ",",
        "in",
        "request.headers",
        ".",
        "é",
        "\\",
        " ",
        "contains",
        "!",
        "flags",
        "source",
        "250ms",
    ];
    let mut random = fastrand::Rng::with_seed(17);
    let address = crate::net::Address::Tcp("10.0.0.1:80".parse().unwrap());
    for _ in 0..20_000 {
        let count = random.usize(..12);
        let text: String = (0..count).map(|_| pieces[random.usize(..pieces.len())]).collect();
        match Filter::parse(&text) {
            Ok(filter) => drop(filter.accepts(&record(b"/", &address))),
            Err(error) => assert!(error.at <= text.len() && text.is_char_boundary(error.at)),
        }
    }
    assert!(
        Flag::ALL
            .iter()
            .all(|flag| { Filter::parse(&format!("flags contains '{}'", flag.letters())).is_ok() })
    );
}
