//! Reads filters.

use std::time::Duration;

use super::TextError;
use super::field::{Field, Kind, Plain};
use super::filter::{Expression, Literal, Order, Part};
use crate::error::Flag;
use crate::net::Network;

/// How deep a filter may nest.
const DEPTH_MAX: usize = 32;

/// Creates the value of a header field.
type HeaderField = fn(Box<str>) -> Field;

/// The beginnings of names of header fields.
const HEADERS: [(&str, HeaderField); 2] =
    [("request.headers", Field::Request), ("response.headers", Field::Response)];

const FIELDS: &str = "status, method, path, host, route, service, endpoint, duration, sent_bytes, \
    response_flags, source, identity, grpc_status, failed, request.headers.NAME";

/// Names of other proxies for the values.
const FOREIGN: &[(&str, &str)] = &[
    ("response.code", "status"),
    ("response_code", "status"),
    ("code", "status"),
    ("status_code", "status"),
    ("response.grpc_status", "grpc_status"),
    ("response.flags", "response_flags"),
    ("flag", "response_flags"),
    ("response.code_details", "detail"),
    ("response.size", "sent_bytes"),
    ("bytes", "sent_bytes"),
    ("request.size", "received_bytes"),
    ("request.path", "path"),
    ("request.url_path", "path"),
    ("uri", "target"),
    ("url", "target"),
    ("request.method", "method"),
    ("request.host", "host"),
    ("request.id", "request_id"),
    ("request.protocol", "protocol"),
    ("request.scheme", "scheme"),
    ("request.useragent", "user_agent"),
    ("request.duration", "duration"),
    ("response.duration", "duration"),
    ("latency", "duration"),
    ("time", "duration"),
    ("source.address", "source"),
    ("source.ip", "source"),
    ("remote_addr", "source"),
    ("client_ip", "source"),
    ("source.principal", "identity"),
    ("connection.uri_san_peer_certificate", "identity"),
    ("principal", "identity"),
    ("upstream", "service"),
    ("cluster", "service"),
    ("upstream.cluster", "service"),
    ("upstream.address", "endpoint"),
    ("xds.cluster_name", "service"),
    ("xds.route_name", "route"),
    ("rule", "route"),
    ("retries", "attempts"),
    ("error", "failed"),
];

/// The value called `name`: that of a record, or `request.headers.NAME`.
pub(super) fn field(name: &str) -> Option<Field> {
    let header = HEADERS.iter().find_map(|(start, header)| {
        let name = name.strip_prefix(start)?.strip_prefix('.')?;
        let is_name = crate::message::is_token(name.as_bytes());
        is_name.then(|| header(name.to_ascii_lowercase().into()))
    });
    header.or_else(|| Field::plain(name).map(Field::Plain))
}

/// Parses a whole filter.
pub(super) fn filter(text: &str) -> Result<Expression, TextError> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, end: text.len(), depth: 0 };
    if parser.tokens.is_empty() {
        let help = "write a condition, such as `status >= 500 or duration > 250ms`";
        return Err(TextError::new(0, "the filter is empty", help));
    }
    let expression = parser.either()?;
    match parser.tokens.get(parser.at) {
        None => Ok(expression),
        Some((at, Token::Close)) => {
            Err(TextError::new(*at, "this `)` closes nothing", "leave it out"))
        }
        Some((at, token)) => {
            let message = format!("{} after a complete condition", token.shown());
            Err(TextError::new(*at, message, "join conditions with `and` or `or`"))
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Number(String),
    Text(String),
    Order(Order),
    Open,
    Close,
    OpenList,
    CloseList,
    Comma,
}

impl Token {
    fn shown(&self) -> String {
        match self {
            Self::Word(text) | Self::Number(text) => format!("`{text}`"),
            Self::Text(text) => format!("{text:?}"),
            Self::Order(_) => "a comparison".to_owned(),
            Self::Open => "`(`".to_owned(),
            Self::Close => "`)`".to_owned(),
            Self::OpenList => "`[`".to_owned(),
            Self::CloseList => "`]`".to_owned(),
            Self::Comma => "`,`".to_owned(),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, TextError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let (len, token) = match first {
            ' ' | '\t' | '\n' | '\r' => (1, None),
            '(' => (1, Some(Token::Open)),
            ')' => (1, Some(Token::Close)),
            '[' => (1, Some(Token::OpenList)),
            ']' => (1, Some(Token::CloseList)),
            ',' => (1, Some(Token::Comma)),
            '"' | '\'' => quoted(rest, first).map_err(|error| TextError { at, ..error })?,
            '0'..='9' => {
                let len = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
                (len, Some(Token::Number(rest[..len].to_owned())))
            }
            'a'..='z' | 'A'..='Z' | '_' => {
                let is_header = HEADERS.iter().any(|(start, _)| rest.starts_with(start));
                let of_word = |c: char| {
                    c.is_ascii_alphanumeric() || "_.".contains(c) || is_header && c == '-'
                };
                let len = rest.find(|c: char| !of_word(c)).unwrap_or(rest.len());
                (len, Some(Token::Word(rest[..len].to_owned())))
            }
            _ => sign(rest).ok_or_else(|| stray(at, rest, first))?,
        };
        tokens.extend(token.map(|token| (at, token)));
        at += len;
    }
    Ok(tokens)
}

fn sign(rest: &str) -> Option<(usize, Option<Token>)> {
    const SIGNS: [(&str, Token); 6] = [
        ("==", Token::Order(Order::Equal)),
        ("!=", Token::Order(Order::Unequal)),
        ("<=", Token::Order(Order::LessOrEqual)),
        (">=", Token::Order(Order::MoreOrEqual)),
        ("<", Token::Order(Order::Less)),
        (">", Token::Order(Order::More)),
    ];
    let words = [("&&", "and"), ("||", "or"), ("!", "not")];
    let sign = SIGNS.into_iter().find(|(sign, _)| rest.starts_with(sign));
    let word = || words.into_iter().find(|(sign, _)| rest.starts_with(sign));
    match sign {
        Some((sign, token)) => Some((sign.len(), Some(token))),
        None => word().map(|(sign, word)| (sign.len(), Some(Token::Word(word.to_owned())))),
    }
}

fn stray(at: usize, rest: &str, first: char) -> TextError {
    let help = match first {
        '=' if rest.starts_with("=~") => "write `contains`, `starts_with` or `ends_with`",
        '=' => "write `==`",
        '~' => "write `contains`, `starts_with` or `ends_with`",
        '/' => "write a path in quotes: \"/api\"",
        '%' => "write the name of a value, such as `status`",
        _ => "write a condition, such as `status >= 500`",
    };
    TextError::new(at, format!("`{first}` is not a part of a filter"), help)
}

/// Reads text in quotes. `\` keeps the next character as it is.
fn quoted(rest: &str, quote: char) -> Result<(usize, Option<Token>), TextError> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => text.extend(chars.next().map(|(_, next)| next)),
            _ if char == quote => return Ok((at + 1, Some(Token::Text(text)))),
            _ => text.push(char),
        }
    }
    let message = format!("this text has no end: {rest}");
    Err(TextError::new(0, message, format!("write {quote} at its end")))
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    end: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn place(&self) -> usize {
        self.tokens.get(self.at).map_or(self.end, |(at, _)| *at)
    }

    fn takes(&mut self, wanted: &Token) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn takes_word(&mut self, wanted: &str) -> bool {
        self.takes(&Token::Word(wanted.to_owned()))
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.at += 1;
        token
    }

    fn either(&mut self) -> Result<Expression, TextError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let message = format!("a filter may nest {DEPTH_MAX} levels deep");
            return Err(TextError::new(self.place(), message, "write a simpler filter"));
        }
        let mut left = self.both()?;
        while self.takes_word("or") {
            left = Expression::Or(Box::new([left, self.both()?]));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn both(&mut self) -> Result<Expression, TextError> {
        let mut left = self.single()?;
        while self.takes_word("and") {
            left = Expression::And(Box::new([left, self.single()?]));
        }
        Ok(left)
    }

    fn single(&mut self) -> Result<Expression, TextError> {
        let mut negations = 0;
        while self.takes_word("not") {
            negations += 1;
        }
        let inner = if self.takes(&Token::Open) {
            let inner = self.either()?;
            if !self.takes(&Token::Close) {
                let message = "a `(` is not closed";
                return Err(TextError::new(
                    self.place(),
                    message,
                    "write `)` after the conditions",
                ));
            }
            inner
        } else {
            self.condition()?
        };
        let is_negated = negations % 2 == 1;
        Ok(if is_negated { Expression::Not(Box::new(inner)) } else { inner })
    }

    fn condition(&mut self) -> Result<Expression, TextError> {
        let place = self.place();
        let field = self.field()?;
        if let Some(Token::Order(order)) = self.peek() {
            let order = *order;
            self.at += 1;
            return self.comparison(field, order);
        }
        if self.takes_word("in") {
            return Ok(Expression::In(field.clone(), self.list(&field)?));
        }
        let parts = [
            ("contains", Part::Contains),
            ("starts_with", Part::StartsWith),
            ("ends_with", Part::EndsWith),
        ];
        for (word, part) in parts {
            if self.takes_word(word) {
                return self.part(field, word, part);
            }
        }
        match field.kind() {
            Kind::Bool => Ok(Expression::Is(field)),
            _ => {
                let message = format!("{} is compared with nothing", field.name());
                let help = format!("write `{} {}`", field.name(), example(field.kind()));
                Err(TextError::new(place, message, help))
            }
        }
    }

    fn field(&mut self) -> Result<Field, TextError> {
        let place = self.place();
        let help = "write the name of a value, such as `status`";
        let name = match self.next() {
            Some(Token::Word(name)) => name,
            Some(token) => {
                let token = token.shown();
                let message = format!("a condition begins with a name, and not with {token}");
                return Err(TextError::new(place, message, help));
            }
            None => return Err(TextError::new(place, "a condition is missing here", help)),
        };
        if let Some((_, header)) = HEADERS.iter().find(|(start, _)| *start == name) {
            return self.bracketed(&name, *header);
        }
        field(&name).ok_or_else(|| unknown(place, &name))
    }

    /// Reads the name of a header field in brackets, as it is written in other proxies.
    fn bracketed(&mut self, of: &str, header: HeaderField) -> Result<Field, TextError> {
        let place = self.place();
        if self.takes(&Token::OpenList)
            && let Some(Token::Text(name)) = self.next()
            && self.takes(&Token::CloseList)
            && crate::message::is_token(name.as_bytes())
        {
            return Ok(header(name.to_ascii_lowercase().into()));
        }
        let message = format!("{of} needs the name of a header field");
        Err(TextError::new(place, message, format!("write {of}.x-user")))
    }

    fn comparison(&mut self, field: Field, order: Order) -> Result<Expression, TextError> {
        let place = self.place();
        let is_order = !matches!(order, Order::Equal | Order::Unequal);
        let ordered = matches!(field.kind(), Kind::Number | Kind::Duration);
        let literal = self.literal(&field)?;
        if is_order && !ordered {
            let message = format!("{} is not a number, so nothing is more or less", field.name());
            let help = format!("write `{} {}`", field.name(), example(field.kind()));
            return Err(TextError::new(place, message, help));
        }
        Ok(Expression::Compare(field, order, literal))
    }

    fn part(&mut self, field: Field, word: &str, part: Part) -> Result<Expression, TextError> {
        let place = self.place();
        let wrong = |message: String| {
            let help = format!("write `{} {}`", field.name(), example(field.kind()));
            Err(TextError::new(place, message, help))
        };
        match (self.next(), field.kind()) {
            (Some(Token::Text(text)), Kind::Text) => {
                Ok(Expression::Part(field, part, text.into_bytes().into()))
            }
            (Some(Token::Text(text)), Kind::Flags) if part == Part::Contains => {
                let Literal::Flag(flag) = flag(place, &text)? else {
                    return wrong("not a flag".into());
                };
                Ok(Expression::Part(field, part, flag))
            }
            (Some(Token::Text(_)), _) => {
                wrong(format!("`{word}` is for text, and {} is no text", field.name()))
            }
            _ => Err(TextError::new(
                place,
                format!("`{word}` needs a text in quotes"),
                format!("write `{} {word} \"TEXT\"`", field.name()),
            )),
        }
    }

    fn list(&mut self, field: &Field) -> Result<Vec<Literal>, TextError> {
        let mut literals = Vec::new();
        let wrong = |place| {
            let message = "`in` needs a list";
            let of = example(field.kind());
            let of = of.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '"');
            let help = format!("write `{} in [{of}]`", field.name());
            Err(TextError::new(place, message, help))
        };
        if !self.takes(&Token::OpenList) {
            return wrong(self.place());
        }
        loop {
            literals.push(self.literal(field)?);
            if self.takes(&Token::CloseList) {
                return Ok(literals);
            }
            if !self.takes(&Token::Comma) {
                return wrong(self.place());
            }
        }
    }

    /// Reads a literal of the type of `field`.
    fn literal(&mut self, field: &Field) -> Result<Literal, TextError> {
        let place = self.place();
        let (kind, name) = (field.kind(), field.name());
        let token = self.next();
        let wrong = |token: &str| {
            let is = match kind {
                Kind::Text => "text",
                Kind::Number => "a number",
                Kind::Duration => "a length of time",
                Kind::Bool => "true or false",
                Kind::Ip => "an IP address",
                Kind::Flags => "a response flag",
            };
            let message = format!("{name} is {is}, and {token} is not");
            let help = match (kind, token.strip_prefix('`').and_then(|t| t.strip_suffix('`'))) {
                (Kind::Number, None) if is_digits(token.trim_matches('"')) => {
                    format!("write it without quotes: {}", token.trim_matches('"'))
                }
                (Kind::Text, Some(word)) => format!("write it in quotes: \"{word}\""),
                (Kind::Duration, Some(number)) if is_digits(number) => {
                    format!("write {number}ms, or {number}s")
                }
                _ => format!("write `{name} {}`", example(kind)),
            };
            TextError::new(place, message, help)
        };
        let Some(token) = token else {
            let message = format!("{name} is compared with nothing");
            let help = format!("write `{name} {}`", example(kind));
            return Err(TextError::new(place, message, help));
        };
        match (kind, &token) {
            (Kind::Text, Token::Text(text)) => Ok(Literal::Text(text.as_bytes().into())),
            (Kind::Number, Token::Number(number)) => {
                number_of(number).map(Literal::Number).ok_or_else(|| wrong(&token.shown()))
            }
            (Kind::Duration, Token::Number(number)) => {
                micros_of(number).map(Literal::Micros).ok_or_else(|| wrong(&token.shown()))
            }
            (Kind::Bool, Token::Word(word)) if word == "true" => Ok(Literal::Bool(true)),
            (Kind::Bool, Token::Word(word)) if word == "false" => Ok(Literal::Bool(false)),
            (Kind::Ip, Token::Text(text)) => Network::parse(text)
                .map(Literal::Network)
                .map_err(|error| TextError::new(place, error.message, error.help)),
            (Kind::Flags, Token::Text(text)) => flag(place, text),
            _ => Err(wrong(&token.shown())),
        }
    }
}

fn flag(place: usize, text: &str) -> Result<Literal, TextError> {
    if text == "-" || Flag::ALL.iter().any(|flag| flag.letters() == text) {
        return Ok(Literal::Flag(text.as_bytes().into()));
    }
    let all: Vec<&str> = Flag::ALL.iter().map(|flag| flag.letters()).collect();
    let help = format!("write \"-\" for none, or one of {}", all.join(", "));
    Err(TextError::new(place, format!("{text:?} is not a response flag"), help))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn number_of(text: &str) -> Option<u64> {
    let units = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    let unit = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (digits, factor) = unit.unwrap_or((text, 1));
    is_digits(digits).then(|| digits.parse::<u64>().ok()?.checked_mul(factor))?
}

fn micros_of(text: &str) -> Option<u64> {
    if is_digits(text) && text != "0" {
        return None;
    }
    let duration = match text {
        "0" => Duration::ZERO,
        text => humantime::parse_duration(text).ok()?,
    };
    u64::try_from(duration.as_micros()).ok()
}

fn example(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "== \"text\"",
        Kind::Number => ">= 500",
        Kind::Duration => "> 250ms",
        Kind::Bool => "== true",
        Kind::Ip => "in [\"10.0.0.0/8\"]",
        Kind::Flags => "contains \"UH\"",
    }
}

pub(super) fn unknown(place: usize, name: &str) -> TextError {
    let message = format!("there is no value {name:?}");
    let plain = name.to_ascii_lowercase();
    let foreign = FOREIGN.iter().find(|(foreign, _)| *foreign == plain).map(|(_, own)| *own);
    let near = || {
        let names = Plain::ALL.iter().map(|plain| plain.name());
        let rated = names.map(|own| (strsim::jaro_winkler(own, &plain), own));
        let best = rated.max_by(|one, other| one.0.total_cmp(&other.0));
        best.filter(|(rate, _)| *rate > 0.85).map(|(_, own)| own)
    };
    let help = match foreign.or_else(near) {
        Some(own) => format!("write `{own}`"),
        None if plain.starts_with("header") || plain.starts_with("req") => {
            "write request.headers.NAME or response.headers.NAME".to_owned()
        }
        None => format!("the values are {FIELDS}"),
    };
    TextError::new(place, message, help)
}
