//! `ringway completions` and `ringway man`: every command is in them, and real shells accept them.

use std::process::Command;

use crate::support::peers::program;
use crate::support::skipped;

fn ringway(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ringway")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The commands, from the help.
fn commands() -> Vec<String> {
    let help = ringway(&["--help"]);
    let (_, rest) = help.split_once("Commands:\n").unwrap();
    let lines = rest.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let is_one = |name: &&str| !name.is_empty() && *name != "help";
    let names: Vec<String> = names.filter(is_one).map(str::to_owned).collect();
    assert!(names.iter().any(|name| name == "run"), "{help}");
    names
}

/// As with `ringway schema | head`.
#[test]
fn a_closed_output_is_no_panic() {
    for line in [
        "schema",
        "completions bash",
        "man",
        "check -c conf/canary",
        "explain -c conf/canary GET http://shop.example.com/",
        "intercept show",
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        command.args(line.split(' ')).stdout(writer).current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{line}: {said}");
    }
}

#[test]
fn bash_completes_commands_and_options() {
    let script = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(script.path(), ringway(&["completions", "bash"])).unwrap();
    let complete = |words: &str, last: &str, before: &str| {
        let count = words.split(' ').count() - 1;
        let line = format!(
            ". {}; COMP_WORDS=({words} '{last}'); COMP_CWORD={}; _ringway ringway '{last}' \
             '{before}'; echo ${{COMPREPLY[@]}}",
            script.path().display(),
            count + 1
        );
        let output = program("bash").args(["-c", &line]).output().unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let offered = complete("ringway", "", "ringway");
    for command in commands() {
        assert!(offered.split_whitespace().any(|word| word == command), "{command}: {offered}");
    }
    assert_eq!(complete("ringway", "che", "ringway").trim(), "check");
    assert_eq!(complete("ringway check", "--str", "check").trim(), "--strict");
    assert!(complete("ringway intercept up", "--exclude-inbound-p", "up").contains("-ports"));
}

#[test]
fn zsh_and_fish_accept_their_completions() {
    for shell in ["zsh", "fish"] {
        let text = ringway(&["completions", shell]);
        for command in commands() {
            assert!(text.contains(&command), "{shell}: {command} is missing");
        }
        let script = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(script.path(), text).unwrap();
        match program(shell).arg("-n").arg(script.path()).output() {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.status.success() && said.is_empty(), "{shell}: {said}");
            }
            Err(_) => skipped(&format!("the completions of {shell}: {shell} is missing")),
        }
    }
}

#[test]
fn each_command_has_a_manual_page() {
    let place = tempfile::tempdir().unwrap();
    ringway(&["man", "--dir", place.path().to_str().unwrap()]);
    for command in commands() {
        let page = std::fs::read_to_string(place.path().join(format!("ringway-{command}.1")));
        let page = page.unwrap_or_else(|error| panic!("{command}: {error}"));
        assert!(page.contains(".TH ringway-"), "{page}");
    }
    assert!(place.path().join("ringway-intercept-up.1").exists());
    assert_eq!(ringway(&["man"]), std::fs::read_to_string(place.path().join("ringway.1")).unwrap());
    let nowhere = Command::new(env!("CARGO_BIN_EXE_ringway"))
        .args(["man", "--dir", "/nonexistent/man1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&nowhere.stderr);
    assert!(!nowhere.status.success() && said.contains("/nonexistent/man1"), "{said}");
}
