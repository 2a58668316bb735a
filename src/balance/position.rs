//! The zone of this proxy, compared with the zones of endpoints.

use super::Level;

/// The zone of this proxy, in the form in which it is compared with the zones of one service's
/// endpoints.
#[derive(Clone, Debug, Default)]
pub struct Position {
    /// The leading parts of the proxy's zone that are compared. Empty means that zones are ignored.
    pub near: Vec<Box<str>>,
    /// The other zones, in the order in which they get requests.
    pub failover: Vec<Box<str>>,
    /// Whether any endpoint of the service has a zone or a priority.
    pub is_used: bool,
}

impl Position {
    /// The level of an endpoint in `zone` with this priority.
    pub fn level(&self, zone: Option<&str>, priority: u32) -> Level {
        let common = zone.map_or(0, |zone| {
            let pairs = zone.split('/').zip(&self.near);
            pairs.take_while(|(part, own)| **part == ***own).count()
        });
        let far = self.near.len() - common;
        let in_chain = |zone| self.failover.iter().position(|to| is_within(zone, to));
        let distance = match (far, zone.and_then(in_chain)) {
            (0, _) => 0,
            (_, Some(place)) => place + 1,
            (_, None) => self.failover.len() + far,
        };
        Level { priority, distance: distance as u32 }
    }
}

/// Whether `zone` equals `of` or is within it.
pub fn is_within(zone: &str, of: &str) -> bool {
    zone.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_the_parts_that_differ() {
        let near = |text: &str| text.split('/').map(Into::into).collect();
        let position = |own: &str, chain: &[&str]| Position {
            near: near(own),
            failover: chain.iter().map(|&zone| zone.into()).collect(),
            is_used: true,
        };
        for (own, chain, zone, distance) in [
            ("eu/a", &[][..], "eu/a", 0),
            ("eu/a", &[], "eu/a/rack1", 0),
            ("eu/a", &[], "eu/b", 1),
            ("eu/a", &[], "eu", 1),
            ("eu/a", &[], "us/a", 2),
            ("eu/a", &[], "europe/a", 2),
            ("eu/a/rack1", &[], "eu/a", 1),
            ("eu/a/rack1", &[], "eu/b/rack1", 2),
            ("eu", &[], "eu/b", 0),
            ("eu/a", &["us", "eu/b"], "eu/a", 0),
            ("eu/a", &["us", "eu/b"], "us/c", 1),
            ("eu/a", &["us", "eu/b"], "eu/b", 2),
            ("eu/a", &["us", "eu/b"], "eu/c", 3),
            ("eu/a", &["us", "eu/b"], "asia", 4),
        ] {
            let level = position(own, chain).level(Some(zone), 7);
            assert_eq!(level, Level { priority: 7, distance }, "{own} {zone}");
        }
        assert_eq!(position("eu/a", &[]).level(None, 0).distance, 2, "an unknown zone is far");
        assert_eq!(Position::default().level(Some("eu"), 0), Level::default());
    }
}
