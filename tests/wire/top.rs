//! `ringway top` in a real terminal (tmux), with real keys.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port, skipped};

/// A terminal in tmux, with a server of its own.
struct Terminal(String);

impl Terminal {
    fn start(command: &str) -> Option<Self> {
        let terminal = Self(format!("ringway-top-{}", std::process::id()));
        let size = ["-x", "110", "-y", "16"];
        let started = terminal.tmux(&[&["new-session", "-d"], &size[..], &[command]].concat());
        started.is_some_and(|output| output.status.success()).then_some(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> Option<Output> {
        let mut command = Command::new("tmux");
        command.args(["-L", &self.0, "-f", "/dev/null"]).args(arguments);
        command.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8").output().ok()
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Waits until the screen has all of `parts`, and none of `absent`.
    fn await_screen(&self, parts: &[&str], absent: &[&str]) -> String {
        let mut last = String::new();
        eventually(&format!("{parts:?} without {absent:?}"), || {
            let screen = self.tmux(&["capture-pane", "-p"])?.stdout;
            last = String::from_utf8_lossy(&screen).into_owned();
            let fits = parts.iter().all(|part| last.contains(part))
                && !absent.iter().any(|part| last.contains(part));
            fits.then(|| last.clone())
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

#[test]
fn top_shows_rates_and_obeys_its_keys() {
    let (good, bad) = (
        Origin::saying("ok"),
        Origin::scripted(|peer| {
            while peer.request().is_some() {
                peer.send("HTTP/1.1 503 Sad\r\nContent-Length: 0\r\n\r\n");
            }
        }),
    );
    let port = free_port();
    let (one, two) = (good.address(), bad.address());
    let proxy = Proxy::start(&format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes:\n  a: [{{name: first, to: alpha}}]\n  b: [{{name: second, to: beta}}]\n\
         services: {{alpha: {{endpoints: [\"{one}\"]}}, beta: {{endpoints: [\"{two}\"]}}}}\n"
    ));
    let ringway = env!("CARGO_BIN_EXE_ringway");
    let command = format!("{ringway} top --admin 127.0.0.1:{}", proxy.admin_port());
    let Some(terminal) = Terminal::start(&command) else {
        return skipped("tmux is missing");
    };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::connect(port);
            while !done.load(Ordering::Relaxed) {
                assert_eq!(client.get("a", "/").status, 200);
                assert_eq!(client.get("b", "/").status, 503);
            }
        });
        let screen = terminal.await_screen(&["[1 services]", "100.00%", " 0.00%"], &[]);
        assert!(screen.contains("p99") && screen.contains("alpha"), "{screen}");
        // The filter applies while it is typed.
        terminal.keys(&["/", "b", "e"]);
        terminal.await_screen(&["filter: be_", "beta"], &["alpha"]);
        terminal.keys(&["Escape"]);
        terminal.await_screen(&["alpha", "beta"], &["filter:"]);
        terminal.keys(&["2"]);
        terminal.await_screen(&["[2 routes]", "a first", "b second"], &["p99"]);
        // Sorted by success, the best first, and then the worst first.
        terminal.keys(&[">"]);
        let best = terminal.await_screen(&["success v", "a first", "b second"], &[]);
        assert!(best.find("a first") < best.find("b second"), "{best}");
        terminal.keys(&["r"]);
        let worst = terminal.await_screen(&["success ^", "a first", "b second"], &[]);
        assert!(worst.find("b second") < worst.find("a first"), "{worst}");
        terminal.keys(&["3"]);
        terminal.await_screen(&["[3 endpoints]", &one, &two, " ok"], &[]);
        let admin = format!("127.0.0.1:{}", proxy.admin_port());
        let mut once = Command::new(ringway);
        let once = once.args(["top", "--once", "--admin", &admin]).output().unwrap();
        let text = String::from_utf8_lossy(&once.stdout).into_owned();
        assert!(once.status.success() && text.contains("a first") && text.contains("100.00%"));
        done.store(true, Ordering::Relaxed);
    });
    // A proxy that is away is reported, and the keys still work.
    drop(proxy);
    terminal.await_screen(&["cannot ask the proxy"], &[]);
    terminal.keys(&["q"]);
    eventually("the end", || {
        let listed = terminal.tmux(&["list-sessions"])?;
        (!listed.status.success()).then_some(())
    });
}
