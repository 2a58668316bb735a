//! Errors when rules are installed, removed or tested, with advice for the operator.

/// An error when rules are installed, removed or tested.
#[derive(Debug, thiserror::Error)]
pub enum InterceptError {
    /// A program is not installed.
    #[error("{program} is not installed\n  install it: apt-get install {package}")]
    Missing {
        /// The name of the program.
        program: String,
        /// The Debian package with the program.
        package: &'static str,
    },
    /// The operation needs administrator rights in the network namespace.
    #[error(
        "no permission to change the rules of this network namespace ({said})\n  \
         run it as root; in a container, add the capability NET_ADMIN"
    )]
    Denied {
        /// The program's error output.
        said: String,
    },
    /// The kernel does not support a part of a rule.
    #[error("the kernel does not support a rule ({said})\n  on the host: modprobe -a {modules}")]
    Module {
        /// The program's output on standard error.
        said: String,
        /// The modules that may be missing.
        modules: &'static str,
    },
    /// Another program has an object with a name that Ringway uses.
    #[error(
        "{place} has rules of another program; nothing was changed:\n{lines}\n  \
         move these rules elsewhere, or delete them if nobody needs them:\n  {remedy}"
    )]
    Foreign {
        /// The name of the table or chain.
        place: String,
        /// The rules in it, as text.
        lines: String,
        /// The command that deletes the object.
        remedy: String,
    },
    /// The table belongs to a running process, so no other process can change it.
    #[error(
        "the rules in place belong to a running `ringway run --intercept --fail-open`\n  \
         stop it first; this removes the rules"
    )]
    Held,
    /// A program failed for another reason.
    #[error("{command} failed: {said}")]
    Failed {
        /// The command line of the program.
        command: String,
        /// The program's output on standard error.
        said: String,
    },
    /// There is no such network namespace.
    #[error("no network namespace {name}: {cause}\n  `ip netns` lists those with a name; {hint}")]
    Namespace {
        /// The name from the command line.
        name: String,
        /// The system error.
        cause: String,
        /// Advice about other valid forms of the name.
        hint: &'static str,
    },
    /// The user or group does not exist.
    #[error("there is no {kind} {name:?} on this host\n  {help}")]
    Account {
        /// `user` or `group`.
        kind: &'static str,
        /// The name from the command line or the configuration.
        name: String,
        /// Advice for the operator.
        help: String,
    },
    /// The plan cannot be installed. The text says why.
    #[error("{0}")]
    Plan(String),
}

impl InterceptError {
    /// Returns the error that matches the error output of a failed program.
    pub(super) fn of_program(command: &str, said: &str) -> Self {
        let said = said.trim();
        let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
        let first = || said.lines().next().unwrap_or("no reason given").to_owned();
        let nft = command.starts_with("nft");
        if has(&["Operation not permitted", "Permission denied", "you must be root"]) {
            return Self::Denied { said: format!("{command}: {}", first()) };
        }
        let lacking = [
            "missing kernel module",
            "does not exist (do you need to insmod?)",
            "not supported",
            "No chain/target/match by that name",
            "Couldn't load match",
            "Couldn't load target",
        ];
        // nft prints these texts for an expression or chain type that the kernel does not have.
        let unknown = nft && has(&["No such file or directory", "Could not process rule"]);
        if has(&lacking) || unknown {
            let modules = if nft { NFT_MODULES } else { XTABLES_MODULES };
            return Self::Module { said: format!("{command}: {}", first()), modules };
        }
        Self::Failed { command: command.to_owned(), said: said.to_owned() }
    }
}

/// The kernel modules that the nft rules need.
const NFT_MODULES: &str = "nf_tables nft_chain_nat nft_redir nft_ct nft_fib_inet nft_tproxy \
    nft_reject_inet nf_tproxy_ipv4 nf_tproxy_ipv6";

/// The kernel modules that the iptables rules need.
const XTABLES_MODULES: &str = "xt_REDIRECT xt_TPROXY xt_owner xt_mark xt_connmark xt_conntrack \
    xt_addrtype xt_comment iptable_nat iptable_mangle ip6table_nat ip6table_mangle";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_becomes_what_to_do() {
        // The texts are those of nft 1.0.6, iptables 1.8.9 (both variants) and iproute2 6.1.
        for (command, said, words) in [
            ("nft -f -", "Operation not permitted (you must be root)\n", "run it as root"),
            (
                "iptables-restore",
                "Fatal: can't open lock file /run/xtables.lock: \
              Permission denied",
                "NET_ADMIN",
            ),
            ("ip -4 rule add", "RTNETLINK answers: Operation not permitted", "run it as root"),
            (
                "nft -f -",
                "/dev/stdin:5:3-9: Error: Could not process rule: No such file or \
              directory",
                "modprobe -a nf_tables",
            ),
            (
                "iptables-restore",
                "iptables-restore v1.8.9 (legacy): iptables-restore: unable to \
              initialize table 'nat'\n\nError occurred at line: 1",
                "unable to initialize",
            ),
            (
                "iptables-restore",
                "Extension TPROXY revision 0 not supported, missing kernel \
              module?",
                "xt_TPROXY",
            ),
        ] {
            let message = InterceptError::of_program(command, said).to_string();
            assert!(message.contains(words), "{said:?}: {message}");
        }
    }
}
