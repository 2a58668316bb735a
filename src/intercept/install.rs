//! Installs, removes and prints the rules: selects the backend, keeps the order of the steps, and
//! undoes them when one fails.

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
    /// Returns the wanted backend, or else nft if it works, or else iptables.
    ///
    /// # Errors
    /// When the backend is not installed, or this user may not use it.
    pub fn choose(wanted: Option<Self>) -> Result<Self, InterceptError> {
        if let Some(backend) = wanted {
            backend.need()?;
            return Ok(backend);
        }
        if find("nft").is_some() {
            match run("nft", &["list", "tables"], "") {
                Ok(_) => return Ok(Self::Nft),
                // A kernel without nf_tables may still have the older tables.
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

/// Installs the rules of `plan` and replaces earlier ones. Afterwards either all rules are
/// installed or none.
///
/// # Errors
/// When foreign objects use our names, or the system refuses.
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
        // Report this error, not an error of the cleanup.
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

/// Removes all of our rules before a process installs its own table. The policy route stays if
/// `plan` needs it.
pub(super) fn clear_for(plan: &InterceptPlan) -> Result<(), InterceptError> {
    down(None)?;
    if plan.diverts() { add_routes() } else { Ok(()) }
}

/// Removes all of our rules: those of both backends, or only those of `only`. Returns a text for
/// each removed part.
///
/// # Errors
/// When foreign objects are among ours, or the system refuses.
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

/// The installed rules, as the programs print them. Empty if there are none.
///
/// # Errors
/// When the system refuses.
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

/// The actions of [`up`], as text for `nft`, for the iptables programs, and for `ip`.
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

/// Fails if foreign objects use our names.
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

/// Our table as nft prints it, if there is one.
pub(super) fn listed_by_nft() -> Result<Option<String>, InterceptError> {
    if find("nft").is_none() {
        return Ok(None);
    }
    let tables = match run("nft", &["list", "tables"], "") {
        Ok(tables) => tables,
        // A kernel without nf_tables holds no table of ours.
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

/// The options of the restore programs: keep the other rules, and wait up to 10 s for the lock.
const RESTORE: [&str; 3] = ["--noflush", "-w", "10"];

fn up_iptables(chains: &[rules::Chain]) -> Result<(), InterceptError> {
    let mut steps = Vec::new();
    for &family in families() {
        let saved = Saved::read(&run::<&str>(family.save(), &[], "")?);
        let listed = chains_listed(family)?;
        let text = iptables::install(chains, family, &saved, listed.as_deref());
        steps.push((family, saved, text));
    }
    // Test both families before changing one of them.
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
        // Delete our own table in one step, so that a SIGKILL leaves no part of it.
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

/// Removes empty tables and built-in chains that were created for us, where the kernel allows it.
/// The older iptables keeps a table until its module is unloaded.
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

/// The existing chains, if iptables keeps them where nft can list them.
fn chains_listed(family: Family) -> Result<Option<Vec<String>>, InterceptError> {
    let version = run(family.restore(), &["--version"], "")?;
    if !version.contains("nf_tables") || find("nft").is_none() {
        return Ok(None);
    }
    let listing = run("nft", &["list", "chains", family.nft()], "")?;
    Ok(Some(iptables::chains_listed(&listing)))
}

/// The output of `ip` for each family: the rules, then the routes of our table.
fn listed_routes() -> Result<Vec<(&'static str, String)>, InterceptError> {
    let mut listings = Vec::new();
    if find("ip").is_none() {
        return Ok(listings);
    }
    for family in ip_families() {
        for command in routes::list() {
            // Some versions of `ip` report an error for a table that never had a route.
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
