//! Parses the output of `ringway explain`.

/// The text about one listener.
#[derive(Debug, Default)]
pub struct Told {
    pub rule: Option<String>,
    /// The refusal of the connection or the request, whatever its service.
    pub refused: Option<String>,
    /// The verdict of authorization on an answer of the proxy itself.
    pub verdict: String,
    pub ways: Vec<Way>,
    /// The status and the location.
    pub answers: Option<(u16, String)>,
    /// The proxy reads no requests.
    pub is_bytes: bool,
    pub path: Option<String>,
    pub host: Option<String>,
}

/// A service that may get the request.
#[derive(Debug, Default)]
pub struct Way {
    pub service: String,
    pub endpoints: Vec<String>,
    pub refused: Option<String>,
    pub verdict: String,
}

impl Told {
    /// Reads the part about `listener`.
    pub fn read(text: &str, listener: &str) -> Self {
        let mut told = Self::default();
        let title = format!("listener {listener} (");
        let after = text.lines().skip_while(|line| !line.starts_with(&title)).skip(1);
        for line in after.take_while(|line| line.starts_with(' ')) {
            told.take(line);
        }
        told
    }

    fn take(&mut self, line: &str) {
        let within = line.starts_with("    ");
        let line = line.trim();
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        let way = self.ways.last_mut().filter(|_| within);
        match first {
            "rule" => self.rule = rest.split(' ').next().map(ToOwned::to_owned),
            "to" => {
                let name = rest.split(": ").next().unwrap_or_default();
                let name = match name.starts_with("mesh/") {
                    true => name,
                    false => name.split('/').next().unwrap_or_default(),
                };
                self.ways.push(Way { service: name.to_owned(), ..Way::default() });
            }
            "endpoint:" | "endpoints" => {
                let list = rest.rsplit("): ").next().unwrap_or_default();
                let list = list.split(", ").map(ToOwned::to_owned).collect();
                way.expect("a service before its endpoints").endpoints = list;
            }
            "refused:" => {
                let refused = Some(rest.to_owned());
                match way {
                    Some(way) => way.refused = refused,
                    None => self.refused = refused,
                }
            }
            "authorization:" => {
                let verdict = way.map_or(&mut self.verdict, |way| &mut way.verdict);
                // Reports of other rules follow the verdict.
                if verdict.is_empty() {
                    *verdict = rest.to_owned();
                }
            }
            "answers" => {
                let status = rest.split(' ').next().and_then(|text| text.parse().ok());
                let location = rest.split_once(" location ").map(|(_, location)| location);
                let location = location.unwrap_or_default().to_owned();
                self.answers = Some((status.expect("a status"), location));
            }
            "path" => self.path = rest.strip_prefix("becomes ").map(ToOwned::to_owned),
            "host" => self.host = rest.strip_prefix("becomes ").map(ToOwned::to_owned),
            "declared" => self.is_bytes = true,
            _ => {}
        }
    }
}
