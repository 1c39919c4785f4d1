//! However a lab ends, nothing of it stays.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use agent::lab::process;
use anyhow::{Context, Result, ensure};
use harness::product::{TIMEOUT, eventually, programs};
use harness::{leftovers, needs_root};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::NamedTempFile;

use crate::command::id_in;

/// A lab running as a process of its own.
struct RunningLab {
    child: Child,
    output: NamedTempFile,
}

impl RunningLab {
    fn start(arguments: &[&str]) -> Result<RunningLab> {
        let output = NamedTempFile::new()?;
        let child = Command::new(programs()?.join("caracal"))
            .arg("lab")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(File::create(output.path())?)
            .stderr(File::create(output.path())?)
            .spawn()?;
        Ok(RunningLab { child, output })
    }

    fn id(&self) -> Result<String> {
        let text = fs::read_to_string(self.output.path())?;
        id_in(&text).map(str::to_owned)
    }

    /// Waits until it has at least so many processes, holders included.
    fn wait_processes(&self, least: usize) -> Result<()> {
        eventually("the lab's processes", TIMEOUT, || {
            let running = leftovers::of(&self.id()?).len();
            Ok((running < least).then(|| format!("{running} of {least}")))
        })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id())?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    fn end(&mut self) -> Result<ExitStatus> {
        let mut status = None;
        eventually("the lab's end", TIMEOUT, || {
            status = self.child.try_wait()?;
            Ok(status.is_none().then(|| "it runs".to_owned()))
        })?;
        status.context("it ended")
    }
}

fn expect_nothing_left(id: &str) -> Result<()> {
    let left = leftovers::of(id);
    ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    Ok(())
}

#[test]
fn interrupted_lab_leaves_nothing() -> Result<()> {
    needs_root!();
    // While namespaces are made, once the first programs run, and with everything running.
    for (least, signal) in [
        (2, Signal::SIGINT),
        (12, Signal::SIGTERM),
        (20, Signal::SIGINT),
    ] {
        let mut lab = RunningLab::start(&[])?;
        lab.wait_processes(least)?;
        let id = lab.id()?;
        lab.signal(signal)?;
        let status = lab.end()?;
        ensure!(status.code() == Some(130), "after {least}: {status}");
        expect_nothing_left(&id)?;
    }
    Ok(())
}

#[test]
fn lab_whose_agent_fails_says_why_and_leaves_nothing() -> Result<()> {
    needs_root!();
    let directory = tempfile::tempdir()?;
    for program in ["caracal", "caracal-cni", "caracal-reflector"] {
        symlink(programs()?.join(program), directory.path().join(program))?;
    }
    let agent = programs()?.join("caracal-agent");
    write_script(
        &directory.path().join("caracal-agent"),
        &format!(
            "case \"$*\" in *b1*) echo no luck today; exit 3;; esac\nexec {} \"$@\"\n",
            agent.display()
        ),
    )?;
    let mut command = Command::new(programs()?.join("caracal"));
    command.args(["lab", "--programs"]).arg(directory.path());
    let finished = process::run(None, &mut command, "", Duration::from_secs(60))?;
    ensure!(finished.status.code() == Some(1), "{}", finished.status);
    ensure!(
        finished.stderr.contains("no luck today"),
        "{}",
        finished.stderr
    );
    expect_nothing_left(id_in(&finished.stdout)?)
}

fn write_script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{text}"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

#[test]
fn leftovers_of_a_killed_lab_go_when_the_next_one_starts() -> Result<()> {
    needs_root!();
    let mut killed = RunningLab::start(&[])?;
    killed.wait_processes(12)?;
    let id = killed.id()?;
    killed.signal(Signal::SIGKILL)?;
    killed.end()?;
    let mut next = RunningLab::start(&[])?;
    next.wait_processes(1)?;
    expect_nothing_left(&id)?;
    next.signal(Signal::SIGINT)?;
    next.end()?;
    Ok(())
}

#[test]
fn lab_stays_up_until_taken_down() -> Result<()> {
    needs_root!();
    let caracal = programs()?.join("caracal");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&caracal);
        process::run(
            None,
            command.arg("lab").args(arguments),
            "",
            Duration::from_secs(60),
        )
    };
    let up = run(&["up", "--mesh"])?;
    let id = id_in(&up.stdout)?;
    ensure!(up.status.success(), "{}{}", up.stdout, up.stderr);
    let said = run(&["exec", "--lab", id, "a1", "ip", "-br", "addr"])?;
    ensure!(said.status.code() == Some(0), "{}", said.stderr);
    let peers = run(&["exec", "--lab", id, "b2", "caracal", "peers"])?;
    ensure!(
        peers.stdout.contains("192.168.100.100"),
        "{}{}",
        peers.stdout,
        peers.stderr
    );
    let failed = run(&["exec", "--lab", id, "a1", "sh", "-c", "exit 7"])?;
    ensure!(failed.status.code() == Some(7), "{}", failed.status);
    let show = run(&["show", "--lab", id])?;
    ensure!(show.status.success(), "{}{}", show.stdout, show.stderr);
    let down = run(&["down", "--lab", id])?;
    ensure!(down.status.success(), "{}", down.stderr);
    expect_nothing_left(id)
}
