//! The usual way, for comparison: Compose starts the replicas, and nginx stands before them.
//!
//! A change is made as its recipes say: start what is new, wait until it answers, write the list of `upstream` servers
//! anew, `nginx -s reload`, stop what is old. It is asked what sameport is asked, in the same order.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    net::{IpAddr, SocketAddr},
    process::Command,
    thread,
    time::Duration,
};

use tempfile::TempDir;

use super::{
    super::support::{
        docker::Docker,
        images,
        load::{self, Failure},
        ports, project, wait,
    },
    GO, HTTPBIN, NGINX, Ours, Seen, Server, Way, change, say, times,
};

/// A Compose project with a proxy; it goes down when it is dropped.
struct Usual {
    server: &'static Server,
    name: String,
    port: u16,
    folder: TempDir,
    docker: Docker,
    replicas: usize,
}

impl Usual {
    fn start(server: &'static Server) -> Self {
        let port = ports::free();
        let folder = tempfile::Builder::new().prefix("spt").tempdir_in("/tmp").unwrap();
        let name = format!("spu{}-{port}", std::process::id());
        fs::create_dir(folder.path().join("proxy")).unwrap();
        let mut usual =
            Self { server, name, port, folder, docker: Docker::default(), replicas: server.first as usize };
        usual.write(0);
        usual.grow(usual.replicas);
        usual.list(&usual.containers());
        usual.compose(&["up", "-d", "--no-recreate", "--no-deps", "proxy"]);
        wait::until("the proxy answers", || load::request(usual.address()).map_err(|why| format!("{why:?}")));
        usual
    }

    /// Writes the Compose file for that version.
    fn write(&mut self, version: u32) {
        let Server { image, environment, stop_signal, .. } = self.server;
        let image = images::named_in(&format!("${{{image}}}")).remove(0).1;
        let (proxy, port) = (images::build("nginx"), self.port);
        let file = format!(
            r#"
services:
  app:
    image: {image}
    environment: {{ REPLICA: "{version}", {environment} }}
    stop_signal: {stop_signal}
  proxy:
    image: {proxy}
    command: [nginx, -c, /proxy/nginx.conf, -e, stderr]
    volumes: ["./proxy:/proxy:ro"]
    ports: ["{port}:8080"]
"#
        );
        fs::write(self.folder.path().join("docker-compose.yml"), file).unwrap();
    }

    /// Runs Compose, the plugin or the program of its own.
    fn compose(&self, args: &[&str]) {
        let plugin = self.docker.try_run(&["compose", "version"]).is_ok();
        let mut command = Command::new(if plugin { "docker" } else { "docker-compose" });
        command.args(plugin.then_some("compose")).args(["-p", &self.name]).args(args);
        let output = command.current_dir(&self.folder).output().expect("Docker Compose is installed");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn containers_of(&self, service: &str) -> Vec<String> {
        let (project, service) =
            (of_project(&self.name), format!("label=com.docker.compose.service={service}"));
        self.docker.lines(&["ps", "-q", "--filter", &project, "--filter", &service])
    }

    /// Those of the app, the oldest first.
    fn containers(&self) -> Vec<String> {
        let mut found = self.containers_of("app");
        found.reverse();
        found
    }

    fn address_of(&self, container: &str) -> SocketAddr {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = self.docker.run(&["container", "inspect", container, "-f", format]);
        (address.parse::<IpAddr>().unwrap(), 8080).into()
    }

    /// Waits until each of them answers.
    fn wait_for(&self, containers: &[String]) {
        for container in containers {
            let address = self.address_of(container);
            wait::until("a new container answers", || {
                load::request(address).map_err(|why| format!("{why:?}"))
            });
        }
    }

    /// Has the proxy know these from its next configuration on.
    fn list(&self, containers: &[String]) {
        let servers: String =
            containers.iter().map(|container| format!("server {};", self.address_of(container))).collect();
        let config = format!(
            "daemon off; user root; pid /tmp/nginx.pid; worker_processes auto;
             events {{ worker_connections 1024; }}
             http {{
                 access_log off;
                 client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
                 uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
                 upstream app {{ {servers} }}
                 server {{ listen 8080; location / {{ proxy_pass http://app; }} }}
             }}"
        );
        fs::write(self.folder.path().join("proxy/nginx.conf"), config).unwrap();
    }

    fn reload(&self) {
        let proxy = self.containers_of("proxy").remove(0);
        self.docker.run(&[
            "exec",
            &proxy,
            "nginx",
            "-c",
            "/proxy/nginx.conf",
            "-e",
            "stderr",
            "-s",
            "reload",
        ]);
    }

    /// How long after a reload containers are stopped: `SAMEPORT_PAUSE`, in ms. The recipes have no pause; a careful
    /// operator adds one.
    fn pause() {
        let pause = env::var("SAMEPORT_PAUSE").map_or(0, |text| text.parse().expect("a number of ms"));
        thread::sleep(Duration::from_millis(pause));
    }

    /// Sends nobody to these any more, and ends them.
    fn replace(&self, old: &[String], new: &[String]) {
        self.wait_for(new);
        self.list(new);
        self.reload();
        Self::pause();
        for verb in ["stop", "rm"] {
            let names: Vec<_> = old.iter().map(String::as_str).collect();
            if !names.is_empty() {
                self.docker.run(&[&[verb], &names[..]].concat());
            }
        }
    }

    /// Has Compose run so many, beside those that run.
    fn grow(&self, replicas: usize) {
        self.compose(&[
            "up",
            "-d",
            "--no-recreate",
            "--no-deps",
            "--scale",
            &format!("app={replicas}"),
            "app",
        ]);
    }
}

impl Way for Usual {
    fn address(&self) -> SocketAddr {
        project::outside(self.port)
    }

    fn rollout(&mut self, number: u32) {
        self.write(number);
        let old = self.containers();
        self.grow(2 * self.replicas);
        let new: Vec<_> =
            self.containers().into_iter().filter(|container| !old.contains(container)).collect();
        assert_eq!(new.len(), self.replicas);
        self.replace(&old, &new);
    }

    fn scale(&mut self, replicas: u32) {
        self.replicas = replicas as usize;
        self.grow(self.replicas.max(self.containers().len()));
        let all = self.containers();
        let (stay, go) = all.split_at(self.replicas);
        self.replace(go, stay);
    }

    fn restart(&mut self) {
        let all = self.containers();
        // One alone cannot go before its successor is there.
        if all.len() == 1 {
            self.grow(2);
            return self.replace(&all, &self.containers()[1..]);
        }
        for container in &all {
            let others: Vec<_> = all.iter().filter(|other| *other != container).cloned().collect();
            self.replace(&[], &others);
            self.docker.run(&["restart", container]);
            self.replace(&[], &all);
        }
    }
}

impl Drop for Usual {
    fn drop(&mut self) {
        if let Err(error) = self.docker.remove(&of_project(&self.name)) {
            eprintln!("not everything of {} is removed: {error}", self.name);
        }
    }
}

/// The filter for what Compose made for a project.
fn of_project(name: &str) -> String {
    format!("label=com.docker.compose.project={name}")
}

/// How many requests failed in which way.
fn kinds(seen: &Seen) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for (_, failure) in seen.all().failures {
        let kind = match failure {
            Failure::Status(status) => status,
            other => format!("{other:?}"),
        };
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

/// What both came to, side by side.
fn side_by_side(server: &Server, ours: &Seen, usual: &Seen) -> String {
    let mut text = format!("{:<32}{:>12}{:>16}\n", server.image, "sameport", "Compose, nginx");
    let mut row = |what: &str, ours: String, usual: String| {
        let _ = writeln!(text, "  {what:<30}{ours:>12}{usual:>16}");
    };
    row("requests", ours.requests().to_string(), usual.requests().to_string());
    row("seconds", ours.took.as_secs().to_string(), usual.took.as_secs().to_string());
    for (kind, count) in [
        ("failed, new connections", (|seen: &Seen| seen.fresh.failures.len()) as fn(&Seen) -> usize),
        ("failed, kept connections", |seen| seen.kept.failures.len()),
        ("closed, kept connections", |seen| seen.kept.closed as usize),
    ] {
        row(kind, count(ours).to_string(), count(usual).to_string());
    }
    let (ours, usual) = (kinds(ours), kinds(usual));
    let all: std::collections::BTreeSet<_> = ours.keys().chain(usual.keys()).collect();
    for kind in all {
        let of = |kinds: &BTreeMap<String, usize>| kinds.get(kind).copied().unwrap_or_default().to_string();
        row(&format!("  {kind}"), of(&ours), of(&usual));
    }
    text
}

#[test]
#[ignore = "it compares, and takes Docker Compose and minutes"]
fn sameport_and_a_proxy_are_asked_the_same() {
    for server in [&NGINX, &GO, &HTTPBIN] {
        let ours = change(&mut Ours::start(server), server, times());
        let usual = change(&mut Usual::start(server), server, times());
        say(&side_by_side(server, &ours, &usual));
    }
}
