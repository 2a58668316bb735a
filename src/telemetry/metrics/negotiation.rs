//! Which format a scraper gets.

/// A format of the metrics page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format, version 0.0.4.
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The value of `content-type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The format for a client with these `accept` fields. OpenMetrics must be named: a wildcard
    /// means the text format, which every tool reads.
    pub fn accepted<'a>(fields: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut open, mut text) = (0.0, 0.0);
        for range in fields.into_iter().flat_map(|field| field.split(',')) {
            let (media, quality) = media_range(range);
            let best = match media {
                Some(Self::OpenMetrics) => &mut open,
                Some(Self::Text) => &mut text,
                None => continue,
            };
            *best = quality.max(*best);
        }
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Text }
    }
}

/// The format that a media range names, and its quality. `None` for another type or version.
fn media_range(range: &str) -> (Option<Format>, f32) {
    let mut parts = range.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default().to_ascii_lowercase();
    let (mut quality, mut version) = (1.0, None);
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        match name.trim().to_ascii_lowercase().as_str() {
            "q" => quality = value.trim().parse().unwrap_or(0.0),
            "version" => version = Some(value.trim().trim_matches('"')),
            _ => {}
        }
    }
    let format = match (media.as_str(), version) {
        ("application/openmetrics-text", None | Some("1.0.0" | "0.0.1")) => {
            Some(Format::OpenMetrics)
        }
        ("text/plain" | "text/*", _) => Some(Format::Text),
        _ => None,
    };
    (format, quality)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_those_who_prefer_it() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,\
            application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,\
            */*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;\
            escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, open) in [
            (prometheus_2, true),
            (prometheus_3, true),
            ("", false),
            ("*/*", false),
            ("text/html,application/xhtml+xml,*/*;q=0.8", false),
            ("application/openmetrics-text", true),
            ("APPLICATION/OpenMetrics-Text ; Version=\"1.0.0\"", true),
            ("application/openmetrics-text;version=2.0.0", false),
            ("application/openmetrics-text;q=0", false),
            ("application/openmetrics-text;q=0.4,text/plain;q=0.5", false),
            ("application/openmetrics-text;q=x", false),
            (";;;=,,q=,", false),
        ] {
            let expected = if open { Format::OpenMetrics } else { Format::Text };
            assert_eq!(Format::accepted([accept]), expected, "{accept}");
        }
        let two = ["text/plain;q=0.5", "application/openmetrics-text"];
        assert_eq!(Format::accepted(two), Format::OpenMetrics);
    }
}
