//! The settings of an injection: from the command line, and from the annotations of a pod.

use crate::intercept::plan::PortRange;
use crate::net::Network;

/// The prefix of the annotations.
pub(super) const PREFIX: &str = "ringway.io/";

/// The annotations, without their prefix.
pub(super) const ANNOTATIONS: [&str; 15] = [
    INJECT,
    STATUS,
    "admin-port",
    "config",
    "cpu",
    "cpu-limit",
    "exclude-inbound-cidrs",
    "exclude-inbound-ports",
    "exclude-outbound-cidrs",
    "exclude-outbound-ports",
    "image",
    "image-pull-policy",
    "memory",
    "memory-limit",
    "secret",
];

/// Whether the pod gets a sidecar.
pub(super) const INJECT: &str = "inject";

/// The mark of a pod that has its sidecar.
pub(super) const STATUS: &str = "status";

/// The user of the proxy. Istio uses the same.
pub const USER: u32 = 1337;

/// The port of the admin interface, for the probes.
pub const ADMIN_PORT: u16 = 9900;

/// The name of the ConfigMap and of the Secret.
pub const CONFIG: &str = "ringway-sidecar";

/// The image of the proxy, with the version of this program. No registry is named, because none is
/// ours: who owns it could run programs in all pods.
pub const IMAGE: &str = concat!("ringway:", env!("CARGO_PKG_VERSION"));

/// The CPU time and the memory of a container, as quantities of Kubernetes.
#[derive(Clone, Debug)]
pub struct Resources {
    /// The requested CPU time.
    pub cpu: String,
    /// The requested memory.
    pub memory: String,
    /// The limit on CPU time. It also decides the number of workers.
    pub cpu_limit: String,
    /// The limit on memory.
    pub memory_limit: String,
}

impl Resources {
    /// Compares the requests with their limits.
    ///
    /// # Errors
    /// If Kubernetes would refuse them: the message, and the advice.
    pub fn check(&self) -> Result<(), (String, String)> {
        let pairs =
            [("cpu", &self.cpu, &self.cpu_limit), ("memory", &self.memory, &self.memory_limit)];
        for (name, request, limit) in pairs {
            if amount(request) > amount(limit) {
                let message = format!("the proxy requests {name} {request}, its limit is {limit}");
                return Err((message, format!("raise {name}-limit, or request less")));
            }
        }
        Ok(())
    }
}

/// The number of a quantity, for comparisons.
fn amount(quantity: &str) -> f64 {
    let end = quantity.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(quantity.len());
    let (number, unit) = quantity.split_at(end);
    let units = [
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
    ];
    let factor = units.iter().find(|(name, _)| *name == unit).map_or(1.0, |(_, factor)| *factor);
    number.parse::<f64>().unwrap_or_default() * factor
}

impl Default for Resources {
    fn default() -> Self {
        let [cpu, memory, cpu_limit, memory_limit] =
            ["50m", "32Mi", "1", "256Mi"].map(str::to_owned);
        Self { cpu, memory, cpu_limit, memory_limit }
    }
}

/// The settings of an injection.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The image of both containers.
    pub image: String,
    /// When the image is pulled: `Always`, `IfNotPresent` or `Never`.
    pub image_pull_policy: Option<String>,
    /// The ConfigMap with the configuration.
    pub config_map: String,
    /// The Secret with keys and tokens, which may be absent.
    pub secret: String,
    /// The user of the proxy.
    pub user: u32,
    /// The port of the admin interface.
    pub admin_port: u16,
    /// Ports of the pod that are not captured.
    pub exclude_inbound_ports: Vec<String>,
    /// Ports of other hosts that are not captured.
    pub exclude_outbound_ports: Vec<String>,
    /// Source addresses that are not captured.
    pub exclude_inbound_cidrs: Vec<String>,
    /// Destination addresses that are not captured.
    pub exclude_outbound_cidrs: Vec<String>,
    /// CPU time and memory.
    pub resources: Resources,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            image: IMAGE.to_owned(),
            image_pull_policy: None,
            config_map: CONFIG.to_owned(),
            secret: CONFIG.to_owned(),
            user: USER,
            admin_port: ADMIN_PORT,
            exclude_inbound_ports: Vec::new(),
            exclude_outbound_ports: Vec::new(),
            exclude_inbound_cidrs: Vec::new(),
            exclude_outbound_cidrs: Vec::new(),
            resources: Resources::default(),
        }
    }
}

impl Settings {
    /// Changes the setting of the annotation `name`, without its prefix. Exclusions add to those of
    /// the command line.
    ///
    /// # Errors
    /// If the value is not valid: the advice.
    pub(super) fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        match name {
            "admin-port" => self.admin_port = port(text)?,
            "config" => self.config_map = object_name(text)?,
            "secret" => self.secret = object_name(text)?,
            "image" => self.image = image(text)?,
            "image-pull-policy" => self.image_pull_policy = Some(pull_policy(text)?),
            "cpu" => self.resources.cpu = quantity(text)?,
            "cpu-limit" => self.resources.cpu_limit = quantity(text)?,
            "memory" => self.resources.memory = quantity(text)?,
            "memory-limit" => self.resources.memory_limit = quantity(text)?,
            "exclude-inbound-ports" => add(&mut self.exclude_inbound_ports, text, range)?,
            "exclude-outbound-ports" => add(&mut self.exclude_outbound_ports, text, range)?,
            "exclude-inbound-cidrs" => add(&mut self.exclude_inbound_cidrs, text, network)?,
            "exclude-outbound-cidrs" => add(&mut self.exclude_outbound_cidrs, text, network)?,
            _ => {}
        }
        Ok(())
    }
}

fn add(
    list: &mut Vec<String>,
    text: &str,
    read: fn(&str) -> Result<String, String>,
) -> Result<(), String> {
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let part = read(part)?;
        if !list.contains(&part) {
            list.push(part);
        }
    }
    Ok(())
}

/// Reads a port or a range of ports.
///
/// # Errors
/// If it is neither.
pub fn range(text: &str) -> Result<String, String> {
    text.parse::<PortRange>().map(|_| text.to_owned()).map_err(advice)
}

/// Reads the addresses of a network.
///
/// # Errors
/// If they are none.
pub fn network(text: &str) -> Result<String, String> {
    Network::parse(text).map(|_| text.to_owned()).map_err(|error| error.help.into_owned())
}

/// The last line of a message is its advice.
fn advice(message: String) -> String {
    message.rsplit_once('\n').map_or_else(|| message.clone(), |(_, advice)| advice.to_owned())
}

/// Reads the number of a port.
///
/// # Errors
/// If it is none.
pub fn port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|&port| port > 0).ok_or_else(|| "write a port: 9900".to_owned())
}

/// Reads the name of an object of Kubernetes.
///
/// # Errors
/// If no object can have this name.
pub fn object_name(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    match text.len() <= 253 && text.split('.').all(label) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "write the name of an object: small letters, digits, `-` and `.`, such as {CONFIG}"
        )),
    }
}

/// Reads the name of an image.
///
/// # Errors
/// If no image can have this name.
pub fn image(text: &str) -> Result<String, String> {
    let printed = text.bytes().all(|byte| byte.is_ascii_graphic());
    match printed && !text.is_empty() && !text.starts_with('-') {
        true => Ok(text.to_owned()),
        false => Err(format!("write the name of an image: {IMAGE}")),
    }
}

/// Reads the policy for pulling an image.
///
/// # Errors
/// If it is none.
pub fn pull_policy(text: &str) -> Result<String, String> {
    match ["Always", "IfNotPresent", "Never"].contains(&text) {
        true => Ok(text.to_owned()),
        false => Err("write Always, IfNotPresent or Never".to_owned()),
    }
}

/// Reads a quantity of Kubernetes: 500m, 1.5, 256Mi.
///
/// # Errors
/// If it is none.
pub fn quantity(text: &str) -> Result<String, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let units = ["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"];
    let is_number = number.parse::<f64>().is_ok_and(|number| number > 0.0);
    match is_number && units.contains(&unit) {
        true => Ok(text.to_owned()),
        false => Err("write a quantity: 500m or 1.5 for CPUs, 256Mi or 1Gi for memory".to_owned()),
    }
}
