//! Installs, removes and prints the rules. Selects the backend, runs the steps in order, and undoes
//! them if one fails.

use std::fmt::Write as _;

use super::error::InterceptError;
use super::iptables::{self, Family, Saved};
use super::nft::{self, Found, Lifetime, TABLE};
use super::plan::InterceptPlan;
use super::system::{find, has_ipv6, need, run};
use super::{routes, rules};

/// The program that writes the rules into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// `nft`.
    Nft,
    /// `iptables-restore` and `ip6tables-restore`.
    Iptables,
}

impl Backend {
    /// Returns the `wanted` backend. Without one, returns nft if it works, or else iptables.
    ///
    /// # Errors
    /// If the backend is not installed, or this user may not use it.
    pub fn choose(wanted: Option<Self>) -> Result<Self, InterceptError> {
        if let Some(backend) = wanted {
            backend.need()?;
            return Ok(backend);
        }
        if find("nft").is_some() {
            match run("nft", &["list", "tables"], "") {
                Ok(_) => return Ok(Self::Nft),
                // A kernel without nf_tables may still support the older iptables tables.
                Err(error) if matches!(error, InterceptError::Denied { .. }) => return Err(error),
                Err(error) if find("iptables-restore").is_none() => return Err(error),
                Err(_) => {}
            }
        }
        match find("iptables-restore").is_some() {
            true => Ok(Self::Iptables),
            false => Err(InterceptError::Missing {
                program: "neither nft nor iptables-restore".to_owned(),
                package: "nftables",
            }),
        }
    }

    fn need(self) -> Result<(), InterceptError> {
        let programs = match self {
            Self::Nft => vec!["nft"],
            Self::Iptables => families().iter().flat_map(|f| [f.save(), f.restore()]).collect(),
        };
        programs.into_iter().try_for_each(|program| need(program).map(drop))
    }
}

fn families() -> &'static [Family] {
    if has_ipv6() { &Family::ALL } else { &[Family::V4] }
}

/// Installs the rules of `plan`, and replaces rules that were installed before. Afterwards either
/// all rules are installed, or none.
///
/// # Errors
/// If another program uses names of Ringway, or if a program fails.
pub fn up(plan: &InterceptPlan, backend: Backend) -> Result<(), InterceptError> {
    refuse_foreign()?;
    let chains = rules::chains(plan);
    if plan.diverts() {
        add_routes()?;
    }
    let installed = match backend {
        Backend::Nft => {
            run("nft", &["-f", "-"], &nft::install(&chains, Lifetime::UntilRemoved)).map(drop)
        }
        Backend::Iptables => up_iptables(&chains),
    };
    if let Err(error) = installed {
        // Return this error, and not an error of the cleanup.
        down(None).ok();
        return Err(error);
    }
    match backend {
        Backend::Nft => down_iptables()?,
        Backend::Iptables => down_nft()?,
    };
    if !plan.diverts() {
        remove_routes()?;
    }
    Ok(())
}

/// Removes all rules of Ringway before a process installs a table of its own. Adds the policy route
/// if `plan` needs it.
pub(super) fn clear_for(plan: &InterceptPlan) -> Result<(), InterceptError> {
    down(None)?;
    if plan.diverts() { add_routes() } else { Ok(()) }
}

/// Removes the rules of Ringway: those of both backends, or only those of `only`. Returns a text
/// for each part that was removed.
///
/// # Errors
/// If another program uses names of Ringway, or if a program fails.
pub fn down(only: Option<Backend>) -> Result<Vec<&'static str>, InterceptError> {
    if only.is_none() && find("nft").is_none() && find("iptables-save").is_none() {
        Backend::choose(None)?;
    }
    refuse_foreign()?;
    let mut removed = Vec::new();
    if only != Some(Backend::Iptables) && down_nft()? {
        removed.push("the table `inet ringway`");
    }
    if only != Some(Backend::Nft) && down_iptables()? {
        removed.push("the chains RINGWAY_* of iptables");
    }
    if remove_routes()? {
        removed.push("the policy route");
    }
    Ok(removed)
}

/// The installed rules, as nft, iptables and ip print them. Empty if there are none.
///
/// # Errors
/// If a program fails.
pub fn installed() -> Result<String, InterceptError> {
    let mut text = String::new();
    if let Some(listing) = listed_by_nft()? {
        text.push_str(&listing);
    }
    for family in families().iter().filter(|family| find(family.save()).is_some()) {
        let saved = run(family.save(), &["-c"], "")?;
        if Saved::read(&saved).has_ours() {
            _ = write!(text, "# {}\n{}", family.save(), Saved::ours(&saved));
        }
    }
    for (family, listing) in listed_routes()? {
        for line in routes::ours(&listing) {
            _ = writeln!(text, "# ip {family}: {line}");
        }
    }
    Ok(text)
}

/// The actions of [`up`], as input for `nft` or the iptables programs, and as commands of `ip`.
pub fn planned(plan: &InterceptPlan, backend: Backend) -> String {
    let chains = rules::chains(plan);
    let mut text = String::new();
    match backend {
        Backend::Nft => {
            _ = write!(text, "# nft -f -\n{}", nft::table(&chains, Lifetime::UntilRemoved));
        }
        Backend::Iptables => {
            for family in Family::ALL {
                let rules = iptables::install(&chains, family, &Saved::default(), None);
                _ = write!(text, "# {} --noflush\n{rules}", family.restore());
            }
        }
    }
    if plan.diverts() {
        for family in ["-4", "-6"] {
            for command in routes::add() {
                _ = writeln!(text, "ip {family} {}", command.join(" "));
            }
        }
    }
    text
}

/// Returns an error if another program uses names of Ringway.
pub(super) fn refuse_foreign() -> Result<(), InterceptError> {
    if let Some(listing) = listed_by_nft()? {
        match nft::recognise(&listing) {
            Found::Ours { held: false } => {}
            Found::Ours { held: true } => return Err(InterceptError::Held),
            Found::Foreign(lines) => {
                return Err(foreign(
                    format!("the table `{TABLE}`"),
                    &lines,
                    format!("nft delete table {TABLE}"),
                ));
            }
        }
    }
    for family in families().iter().filter(|family| find(family.save()).is_some()) {
        let lines = Saved::read(&run::<&str>(family.save(), &[], "")?).foreign();
        if !lines.is_empty() {
            return Err(foreign(
                format!("iptables ({})", family.save()),
                &lines,
                "iptables -t TABLE -D CHAIN RULE".to_owned(),
            ));
        }
    }
    Ok(())
}

fn foreign(place: String, lines: &[String], remedy: String) -> InterceptError {
    let lines = lines.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n");
    InterceptError::Foreign { place, lines, remedy }
}

/// The table of Ringway as nft prints it. Returns `None` if it does not exist.
pub(super) fn listed_by_nft() -> Result<Option<String>, InterceptError> {
    if find("nft").is_none() {
        return Ok(None);
    }
    let tables = match run("nft", &["list", "tables"], "") {
        Ok(tables) => tables,
        // A kernel without nf_tables has no such table.
        Err(InterceptError::Module { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    match tables.lines().any(|line| line == format!("table {TABLE}")) {
        true => run("nft", &["list", "table", "inet", "ringway"], "").map(Some),
        false => Ok(None),
    }
}

pub(super) fn down_nft() -> Result<bool, InterceptError> {
    if listed_by_nft()?.is_none() {
        return Ok(false);
    }
    run("nft", &["-f", "-"], &nft::remove()).map(|_| true)
}

/// The options of the restore programs: keep other rules, and wait up to 10 s for the lock.
const RESTORE: [&str; 3] = ["--noflush", "-w", "10"];

fn up_iptables(chains: &[rules::Chain]) -> Result<(), InterceptError> {
    let mut steps = Vec::new();
    for &family in families() {
        let saved = Saved::read(&run::<&str>(family.save(), &[], "")?);
        let listed = chains_listed(family)?;
        let text = iptables::install(chains, family, &saved, listed.as_deref());
        steps.push((family, saved, text));
    }
    // Test the rules of both families before changing those of one.
    for (family, _, text) in &steps {
        run(family.restore(), &[&RESTORE[..], &["--test"]].concat(), text)?;
    }
    for (family, before, text) in &steps {
        run(family.restore(), &RESTORE, text)?;
        remove_what_was_made(*family, before)?;
    }
    Ok(())
}

pub(super) fn down_iptables() -> Result<bool, InterceptError> {
    let mut removed = false;
    for &family in families() {
        if find(family.save()).is_none() || find(family.restore()).is_none() {
            continue;
        }
        let saved = Saved::read(&run::<&str>(family.save(), &[], "")?);
        if !saved.has_ours() {
            continue;
        }
        removed = true;
        // Delete a table that contains only our chains in one step, so that SIGKILL cannot leave a
        // part.
        if chains_listed(family)?.is_some() {
            for table in saved.only_ours() {
                run("nft", &["delete", "table", family.nft(), table], "")?;
            }
        }
        let saved = Saved::read(&run::<&str>(family.save(), &[], "")?);
        if saved.has_ours() {
            run(family.restore(), &RESTORE, &iptables::remove(&saved))?;
            remove_what_was_made(family, &saved)?;
        }
    }
    Ok(removed)
}

/// Removes empty tables and built-in chains that were created for our rules, if the kernel allows
/// it. The older variant of iptables keeps a table until its kernel module is unloaded.
fn remove_what_was_made(family: Family, before: &Saved) -> Result<(), InterceptError> {
    let made = before.made();
    if made.is_empty() || chains_listed(family)?.is_none() {
        return Ok(());
    }
    let now = Saved::read(&run::<&str>(family.save(), &[], "")?);
    for place in made.iter().filter(|place| now.is_empty(place)) {
        let kind = if place.contains(' ') { "chain" } else { "table" };
        run("nft", &["-f", "-"], &format!("delete {kind} {} {place}\n", family.nft()))?;
    }
    Ok(())
}

/// The existing chains. Returns `None` if iptables does not use nf_tables, so that nft cannot list
/// them.
fn chains_listed(family: Family) -> Result<Option<Vec<String>>, InterceptError> {
    let version = run(family.restore(), &["--version"], "")?;
    if !version.contains("nf_tables") || find("nft").is_none() {
        return Ok(None);
    }
    let listing = run("nft", &["list", "chains", family.nft()], "")?;
    Ok(Some(iptables::chains_listed(&listing)))
}

/// The output of `ip` for each family: its rules, and then the routes in our routing table.
fn listed_routes() -> Result<Vec<(&'static str, String)>, InterceptError> {
    let mut listings = Vec::new();
    if find("ip").is_none() {
        return Ok(listings);
    }
    for family in ip_families() {
        for command in routes::list() {
            // Some versions of `ip` report an error for a routing table that was never used. Ignore
            // it.
            let listing = ip(family, &command).unwrap_or_default();
            listings.push((family, listing));
        }
    }
    Ok(listings)
}

fn add_routes() -> Result<(), InterceptError> {
    need("ip")?;
    for listing in listed_routes()?.chunks(2) {
        let lines = routes::foreign(&listing[0].1, &listing[1].1);
        if !lines.is_empty() {
            let family = listing[0].0;
            let remedy = format!("ip {family} rule del RULE; ip {family} route flush table 133");
            return Err(foreign(format!("policy routing (ip {family})"), &lines, remedy));
        }
    }
    for family in ip_families() {
        for command in routes::add() {
            match ip(family, &command) {
                Err(InterceptError::Failed { said, .. }) if said.contains("File exists") => {}
                other => drop(other?),
            }
        }
    }
    Ok(())
}

pub(super) fn remove_routes() -> Result<bool, InterceptError> {
    let there = listed_routes()?.iter().any(|(_, text)| routes::ours(text).next().is_some());
    if there {
        for family in ip_families() {
            for command in routes::remove() {
                ip(family, &command)?;
            }
        }
    }
    Ok(there)
}

fn ip(family: &str, command: &[String]) -> Result<String, InterceptError> {
    let words: Vec<&str> =
        std::iter::once(family).chain(command.iter().map(String::as_str)).collect();
    run("ip", &words, "")
}

fn ip_families() -> &'static [&'static str] {
    if has_ipv6() { &["-4", "-6"] } else { &["-4"] }
}
