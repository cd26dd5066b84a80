//! The same processes outside of any container, sharing a port of the host: what nothing around them would cost.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{
    Peer,
    replicas::{REPLICAS, files, words},
};
use crate::{
    bench::Bench,
    command::sh,
    docker::{free_port, image},
    results::Kind,
};

struct Processes(Vec<Child>);

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // nginx ends its worker with it when it is asked to end, and not when it is killed.
            let pid = i32::try_from(child.id()).map(nix::unistd::Pid::from_raw);
            if let Ok(pid) = pid
                && nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).is_err()
            {
                // It has ended already.
                continue;
            }
            let _ = child.wait();
        }
    }
}

/// Starts them, from the files of the image.
pub fn start(bench: &Bench) -> Result<Peer> {
    let port = free_port()?;
    let root = unpack(bench)?;
    files(&root.join("bench"), port, "reuseport")?;
    let words = words(port);
    let mut processes = Processes(Vec::new());
    for number in 0..REPLICAS {
        // Each has its own file of its process id.
        let pid = format!("pid /tmp/nginx-{port}-{number}.pid;");
        let name = format!("replica-{number}.conf");
        let text = std::fs::read_to_string(root.join(format!("bench/replica-{port}.conf")))?;
        std::fs::write(
            root.join("bench").join(&name),
            text.replace(&format!("pid /tmp/nginx-{port}.pid;"), &pid),
        )?;
        let mut command = Command::new("taskset");
        command.args(["-c", &bench.cores.serving.list(), "chroot"]).arg(&root).args([
            &words[0],
            &words[1],
            &format!("/bench/{name}"),
            &words[3],
            &words[4],
        ]);
        // What works in a container is at the same path outside.
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        processes.0.push(command.spawn().context("cannot start nginx")?);
    }
    if let Some(ended) = processes.0.iter_mut().find_map(|child| child.try_wait().ok().flatten()) {
        bail!("nginx without a container ended: {ended}");
    }
    Ok(Peer::new("bare processes", Kind::Limit, (bench.client.host, port).into(), processes))
}

/// The files of the image, in a folder.
fn unpack(bench: &Bench) -> Result<PathBuf> {
    let root = bench.files().join("root");
    std::fs::create_dir_all(&root)?;
    let container = sh(&format!("docker create {}", image("nginx")?))?;
    let archive = bench.files().join("root.tar");
    let exported = sh(&format!("docker export -o {} {container}", archive.display()));
    sh(&format!("docker rm {container}"))?;
    exported?;
    sh(&format!("tar -C {} -xf {}", root.display(), archive.display()))?;
    std::fs::create_dir_all(root.join("bench"))?;
    Ok(root)
}
