//! Linkerd's identities, which are DNS names instead of SPIFFE IDs.

/// The labels between the namespace of the workload and that of Linkerd's control plane.
const MIDDLE: &str = ".serviceaccount.identity.";

/// `SERVICE-ACCOUNT.NAMESPACE.serviceaccount.identity.linkerd.TRUST-DOMAIN`, as Linkerd writes it
/// into the DNS name of a workload's certificate (Linkerd's documentation, "Automatic mTLS").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkerdName<'a> {
    /// The Kubernetes service account; it may hold dots, as Kubernetes allows.
    pub service_account: &'a str,
    /// The Kubernetes namespace.
    pub namespace: &'a str,
    /// The namespace of the control plane: `linkerd` by default.
    pub control_namespace: &'a str,
    /// The trust domain: `cluster.local`.
    pub trust_domain: &'a str,
}

impl<'a> LinkerdName<'a> {
    /// Parses a DNS name. Returns `None` if it is not a Linkerd identity. The comparison is
    /// case-sensitive, because Linkerd writes names in lower case.
    pub fn parse(name: &'a str) -> Option<Self> {
        // Search from the right, because the name of a service account may contain the middle part.
        let (workload, mesh) = name.rsplit_once(MIDDLE)?;
        let (service_account, namespace) = workload.rsplit_once('.')?;
        let (control_namespace, trust_domain) = mesh.split_once('.')?;
        let allowed = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        let labels = name.split('.').all(|label| !label.is_empty() && label.len() <= 63);
        (labels && name.len() <= 253 && name.bytes().all(allowed)).then_some(Self {
            service_account,
            namespace,
            control_namespace,
            trust_domain,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split() {
        for (name, expected) in [
            (
                "web.emojivoto.serviceaccount.identity.linkerd.cluster.local",
                ("web", "emojivoto", "linkerd", "cluster.local"),
            ),
            ("a.b.c.serviceaccount.identity.l5d.td", ("a.b", "c", "l5d", "td")),
            (
                "a.serviceaccount.identity.b.serviceaccount.identity.linkerd.td",
                ("a.serviceaccount.identity", "b", "linkerd", "td"),
            ),
        ] {
            let found = LinkerdName::parse(name).unwrap();
            let LinkerdName { service_account, namespace, control_namespace, trust_domain } = found;
            let found = (service_account, namespace, control_namespace, trust_domain);
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn other_names_are_none() {
        let long = format!("{}.ns.serviceaccount.identity.linkerd.td", "a".repeat(64));
        for name in [
            "",
            "shop.example.com",
            "web.serviceaccount.identity.linkerd.cluster.local",
            "web.ns.serviceaccount.identity.linkerd",
            "web.ns.serviceaccount.identity.linkerd.",
            ".ns.serviceaccount.identity.linkerd.td",
            "web..serviceaccount.identity.linkerd.td",
            "Web.ns.serviceaccount.identity.linkerd.td",
            "*.ns.serviceaccount.identity.linkerd.td",
            "web.ns.serviceaccount.identity..td",
            &long,
        ] {
            assert_eq!(LinkerdName::parse(name), None, "{name}");
        }
    }
}
