//! Every mistake that ends a load, as the user reads it.

use crate::support::{Folder, assert_shown, file, gallery, service};

#[test]
fn yaml() {
    assert_shown(
        "errors_yaml",
        &gallery([
            ("not closed", file("services:\n  web: {image: nginx\n")),
            ("a tab", file("services:\n\tweb:\n\t\timage: nginx\n")),
            ("bad indentation", file("services:\n  web:\n    image: nginx\n   ports: []\n")),
            ("duplicate key", service("ports: [\"80:80\"]\ncommand: a\nports: [\"81:80\"]")),
            ("duplicate service", file("services:\n  web: {image: a}\n  web: {image: b}\n")),
            ("unknown alias", service("command: *cmd")),
            ("an alias in itself", file("services: &a\n  web:\n    x: *a\n")),
            ("merge of a text", service("<<: nginx")),
            ("a mapping as key", file("{{image: a}: b}\n")),
            ("empty", file("# nothing\n")),
            ("a list", file("- web\n")),
            ("no services", file("name: shop\n")),
            ("a service without keys", file("services:\n  web:\n")),
        ]),
    );
}

#[test]
fn types_and_words() {
    assert_shown(
        "errors_types_and_words",
        &gallery([
            ("a number as image", file("services:\n  web:\n    image: 8080\n")),
            ("a text as list", service("ports: 80:80")),
            ("a mapping as list", service("volumes: {a: b}")),
            ("a list as mapping", service("healthcheck: [a]")),
            ("a number in a command", service("command: [sleep, 10]")),
            ("an open quote in a command", service("command: sh -c 'echo")),
            ("a boolean", service("read_only: maybe")),
            ("restart", service("restart: alway")),
            ("tries", service("restart: on-failure:many")),
            ("condition", service("deploy: {restart_policy: {condition: always}}")),
            ("pull policy", service("pull_policy: sometimes")),
            ("duration", service("stop_grace_period: 10")),
            ("size", service("mem_limit: 64x")),
            ("cpus", service("cpus: two")),
            ("cpuset", service("cpuset: 3-1")),
            ("signal", service("stop_signal: SIGTREM")),
            ("replicas", service("deploy:\n  replicas: -1")),
            ("too many replicas", service("scale: 100000")),
            ("health test", service("healthcheck:\n  test: [curl, localhost]")),
            ("test and disable", service("healthcheck:\n  test: a\n  disable: true")),
            ("device", service("devices: [\"fuse\"]")),
            ("ulimit", service("ulimits:\n  nofile: {soft: 5}\n  nproc: {soft: 5, hard: 3}")),
            ("dns", service("dns: [dns.example]")),
            ("extra host", service("extra_hosts: [\"db=here\"]")),
            ("mode", service("deploy: {mode: global}")),
            ("name", file("name: My Shop\nservices:\n  web: {image: nginx}\n")),
            ("service name", file("services:\n  my web: {image: nginx}\n")),
            ("image name", file("services:\n  web: {image: \"a b\"}\n")),
            ("container name", service("container_name: \"a/b\"")),
            ("sharing", service("x-sameport: {sharing: kernal}")),
            ("x-sameport values", service("x-sameport: {drain: long, pod: \"a b\", probe: {http: healthz}}")),
        ]),
    );
}

#[test]
fn ports() {
    let two = |a: &str, b: &str| {
        file(&format!(
            "services:\n  web:\n    image: a\n    ports: [{a}]\n  api:\n    image: b\n    ports: [{b}]\n"
        ))
    };
    assert_shown(
        "errors_ports",
        &gallery([
            ("not a port", service("ports: [\"http:80\"]")),
            ("too high", service("ports: [\"80:70000\"]")),
            ("zero", service("ports: [\"80:0\"]")),
            ("protocol", service("ports: [\"80:80/tpc\"]")),
            ("address", service("ports: [\"localhost:80:80\"]")),
            ("backwards", service("ports: [\"90-80:90-80\"]")),
            ("unequal ranges", service("ports: [\"8000-8003:80-81\"]")),
            ("long form without target", service("ports:\n  - published: 80")),
            ("long form with a bad protocol", service("ports:\n  - {target: 80, protocol: http}")),
            ("expose with a host port", service("expose: [\"80:80\"]")),
            ("two services", two("\"80:8080\"", "\"80:9090\"")),
            ("one address and all", two("\"80:8080\"", "\"127.0.0.1:80:9090\"")),
            ("ranges", two("\"8000-8010:8000-8010\"", "\"8010:80\"")),
            ("one service twice", service("ports: [\"80:8080\", \"80:9090\"]")),
            ("no port of a range is free", two("\"8000-8001:8000-8001\"", "\"8000-8001:80\"")),
            ("without a network", service("network_mode: none\nports: [\"80:80\"]")),
        ]),
    );
}

#[test]
fn references() {
    assert_shown(
        "errors_references",
        &gallery([
            ("no image", file("services:\n  web:\n    command: a\n")),
            ("build without image", file("services:\n  web:\n    build: .\n")),
            (
                "undefined volume",
                file("services:\n  web:\n    image: a\n    volumes: [\"dat:/data\"]\nvolumes: {data: }\n"),
            ),
            ("no volumes at all", service("volumes: [\"data:/data\"]")),
            ("a relative target", service("volumes: [\"./a:b\"]")),
            ("an unknown option", service("volumes: [\"./a:/b:rox\"]")),
            ("the same target", service("volumes: [\"./a:/b\", \"./c:/b/\"]")),
            ("a volume without type", service("volumes:\n  - {target: /a}")),
            ("a bind without source", service("volumes:\n  - {type: bind, target: /a}")),
            ("a pipe", service("volumes:\n  - {type: npipe, source: a, target: /a}")),
            (
                "undefined network",
                file("services:\n  web:\n    image: a\n    networks: [fornt]\nnetworks: {front: }\n"),
            ),
            ("network and mode", service("networks: [default]\nnetwork_mode: host")),
            (
                "undefined dependency",
                file("services:\n  web: {image: a, depends_on: [dbb]}\n  db: {image: b}\n"),
            ),
            (
                "dependency that is off",
                file("services:\n  web: {image: a, depends_on: [db]}\n  db: {image: b, profiles: [full]}\n"),
            ),
            (
                "a circle",
                file(
                    "services:\n  a: {image: a, depends_on: [b]}\n  b: {image: a, depends_on: [c]}\n  c:\n    image: a\n    depends_on:\n      a: {condition: service_healthy}\n",
                ),
            ),
            ("itself", service("depends_on: [web]")),
            (
                "a job that never ends",
                file(
                    "services:\n  web:\n    image: a\n    depends_on:\n      job: {condition: service_completed_successfully}\n  job:\n    image: b\n    restart: always\n",
                ),
            ),
            ("container name of several", service("container_name: one\nscale: 2")),
            (
                "two container names",
                file(
                    "services:\n  a: {image: a, container_name: same}\n  b: {image: a, container_name: same}\n",
                ),
            ),
            ("scale and replicas", service("scale: 2\ndeploy: {replicas: 3}")),
            ("two limits", service("mem_limit: 1g\ndeploy: {resources: {limits: {memory: 2g}}}")),
            ("more reserved than allowed", service("mem_limit: 1g\nmem_reservation: 2g")),
            (
                "external with a driver",
                file("services:\n  web: {image: a}\nvolumes:\n  data: {external: true, driver: local}\n"),
            ),
            ("no env file", service("env_file: none.env")),
            (
                "bad env file",
                Folder::new(&[
                    ("compose.yaml", "services:\n  web: {image: a, env_file: x.env}\n"),
                    ("x.env", "A=1\nB='open\n"),
                ]),
            ),
        ]),
    );
}

#[test]
fn refused() {
    assert_shown(
        "errors_refused",
        &gallery([
            ("extends", service("extends: {service: base}")),
            ("include", file("include: [other.yaml]\nservices:\n  web: {image: a}\n")),
            ("secrets", service("secrets: [token]")),
            ("configs", service("configs: [token]")),
            ("volumes_from", service("volumes_from: [db]")),
            ("hooks", service("pre_start:\n  - command: a")),
            ("provider", service("provider: {type: x}")),
            ("network of a container", service("network_mode: container:abc")),
            ("net sysctl on the host", service("network_mode: host\nsysctls: {net.core.somaxconn: 1}")),
        ]),
    );
}

#[test]
fn joined_networks() {
    let two = |web: &str, db: &str| {
        file(&format!("services:\n  web:\n    image: a\n    {web}\n  db:\n    image: b\n    {db}\n"))
    };
    assert_shown(
        "errors_joined_networks",
        &gallery([
            ("nobody", service("network_mode: service:dbb")),
            ("itself", service("network_mode: service:web")),
            ("a circle", two("network_mode: service:db", "network_mode: service:web")),
            ("a port", two("network_mode: service:db\n    ports: [\"80:80\"]", "")),
            ("another pod", two("network_mode: service:db\n    x-sameport: {pod: p}", "")),
            ("networks", two("network_mode: service:db\n    networks: [default]", "")),
        ]),
    );
}

#[test]
fn pods() {
    let pod = |a: &str, b: &str| {
        file(&format!(
            "services:\n  a:\n    image: a\n    x-sameport: {{pod: p}}\n    {a}\n  b:\n    image: b\n    x-sameport: {{pod: p}}\n    {b}\n"
        ))
    };
    assert_shown(
        "errors_pods",
        &gallery([
            ("hostname", pod("hostname: one", "hostname: two")),
            ("dns", pod("dns: 1.1.1.1", "dns: 8.8.8.8")),
            ("mode", pod("network_mode: host", "networks: [default]")),
            ("sysctl", pod("sysctls: [net.core.somaxconn=1]", "sysctls: [net.core.somaxconn=2]")),
            ("port", pod("ports: [\"80:80\"]", "ports: [\"80:81\"]")),
        ]),
    );
}

#[test]
fn traffic() {
    let extension = |text: &str| service(&format!("ports: [\"80:80\"]\nx-sameport: {text}"));
    assert_shown(
        "errors_traffic",
        &gallery([
            ("the host's network", service("network_mode: host\nx-sameport: {sharing: kernel}")),
            (
                "no agreement",
                file(
                    "services:\n  a:\n    image: a\n    x-sameport: {pod: p, sharing: kernel}\n  b:\n    image: b\n    x-sameport: {pod: p, sharing: application}\n",
                ),
            ),
            ("a word", extension("{balance: round-robin, hold: forever}")),
            ("nothing asked", extension("{probe: {interval: 2s}}")),
            ("too much asked", extension("{probe: {http: /, tcp: true}}")),
            ("a port in words", extension("{probe: {tcp: http}}")),
            ("no port", service("x-sameport: {probe: {http: /}}")),
            (
                "no port for one of them",
                service("x-sameport: {probe: {readiness: {exec: a}, liveness: {http: /}}}"),
            ),
            ("two commands", extension("{probe: {tcp: 80, exec: a}}")),
            ("an empty command", extension("{probe: {exec: []}}")),
            ("a command of another type", extension("{probe: {exec: {a: b}}}")),
            ("with and without a type", extension("{probe: {http: /, liveness: {tcp: true}}}")),
            ("no mapping below", extension("{probe: {startup: /healthz}}")),
            ("numbers", extension("{probe: {tcp: true, failures: 0, successes: many, start_period: long}}")),
            ("no boolean", extension("{replace_unhealthy: sometimes}")),
        ]),
    );
}

#[test]
fn port_sharing() {
    let ports = |text: &str| service(&format!("x-sameport:\n  ports: {text}"));
    assert_shown(
        "errors_port_sharing",
        &gallery([
            ("port 0", ports("{0: shared}")),
            ("no port", ports("{70000: shared, http: exclusive}")),
            ("backwards", ports("{9-3: exclusive}")),
            ("a protocol", ports("{9000-9001/sctp: exclusive}")),
            ("a word", ports("{8080: exclusiv, 8081: true, 8082: [shared]}")),
            ("nothing", ports("\n    8080:")),
            ("a list", ports("[8080]")),
            ("one text", ports("exclusive")),
            ("both at once", ports("{9000-9010: exclusive, 9005/tcp: shared}")),
            ("both, the later one lower", ports("{9005: shared, 1-65535/udp: exclusive}")),
            (
                "one inside, one behind",
                ports("\n    10-90: shared\n    20: shared\n    50-60: exclusive\n    90/udp: exclusive"),
            ),
        ]),
    );
}

#[test]
fn variables() {
    assert_shown(
        "errors_variables",
        &gallery([
            ("required", service("environment:\n  A: \"x ${DB_PASSWORD:?ask the team} y\"")),
            ("not closed", service("command: echo ${A")),
            ("a lone dollar", service("command: 'echo $? $'")),
            ("a bad operator", service("user: ${A/b}")),
        ]),
    );
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once() {
    let folder = file(
        "services:\n  web:\n    imag: nginx\n    restart: alway\n    ports: [\"a:b\"]\n  db:\n    image: 5\n    stop_signal: X\n",
    );
    assert_shown("errors_all_mistakes_of_a_file_are_told_at_once", &folder.messages());
}

#[test]
fn files() {
    let missing = Folder::new(&[]);
    let mut named = Folder::new(&[]);
    named.options.files = vec!["other.yaml".into()];
    let mut name = file("services:\n  web: {image: a}\n");
    name.options.project_name = Some("My Shop".into());
    let latin = file("");
    std::fs::write(latin.home().join("compose.yaml"), b"name: caf\xe9\n").unwrap();
    assert_shown(
        "errors_files",
        &gallery([
            ("none here", missing),
            ("none there", named),
            ("a bad -p", name),
            ("not UTF-8", latin),
            ("from the environment", file("services: {}").with(&[("COMPOSE_PROJECT_NAME", "A")])),
        ]),
    );
}
