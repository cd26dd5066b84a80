//! PostgreSQL, which by default listens on localhost and lets in who comes from there.

use super::{Lone, TAKEN, WITH_IPV6, listen_on, up, within};

/// The check that is usual, and one by each address.
const CHECK: &str = "pg_isready -h localhost && psql -h 127.0.0.1 -c 'SELECT 1' && psql -h ::1 -c 'SELECT 1'";

/// A line of a shell that asks a server by all of its names, twice each: whether it is the one in the container,
/// by the number that each cluster has of its own, and which addresses it sees. What makes the line an answer of
/// one container and not of another one, its address, is taken out.
const ASK: &str = r#"
own=$(psql -h /tmp -Atc 'SELECT system_identifier FROM pg_control_system()')
address=$(hostname -i)
for host in localhost 127.0.0.1 ::1 $address; do
    for time in 1 2; do
        psql -h $host -AtF ' ' -c "SELECT CASE system_identifier WHEN $own THEN 'itself' ELSE 'another' END,
            host(inet_client_addr()), host(inet_server_addr()) FROM pg_control_system()" 2>&1
    done
done | sed "s/$address/ADDRESS/g"
"#;

/// Replicas of a server that listens on localhost, and of one that listens everywhere.
fn servers(replicas: u32) -> String {
    let service = |name: &str, listen: &str, ports: &str| {
        format!(
            r#"
  {name}:
    image: ${{POSTGRES}}
    environment: {{ REPLICA: "{{{{.Slot}}}}", LISTEN: "{listen}" }}
    sysctls: {{ {WITH_IPV6}: 0 }}
    tmpfs: [/tmp]
    stop_signal: SIGINT
    {ports}: ["5432"]
    healthcheck: {{ test: "{CHECK}", interval: 1s, retries: 60 }}
    deploy: {{ replicas: {replicas} }}
"#
        )
    };
    format!("services:{}{}", service("local", "localhost", "expose"), service("everywhere", "*", "ports"))
}

/// What a container of its own answers.
fn alone(listen: &str) -> Lone {
    let sysctl = format!("{WITH_IPV6}=0");
    let lone = Lone::run(
        "postgres",
        &["--sysctl", &sysctl, "--tmpfs", "/tmp", "-e", &format!("LISTEN={listen}")],
        &[],
    );
    lone.passes(CHECK);
    lone
}

/// Each replica answers as a container of its own does.
fn each_reaches_itself(replicas: u32) {
    let lone = [("local", alone("localhost")), ("everywhere", alone("*"))];
    let project = up(&servers(replicas));
    for (service, lone) in &lone {
        let judge = lone.within(ASK);
        let reached: Vec<_> = judge.iter().filter(|line| line.starts_with("itself")).collect();
        assert_eq!(reached.len(), 6, "{judge:#?}");
        let rest =
            judge.iter().filter(|line| line.contains("refused") || line.contains("pg_hba.conf rejects"));
        assert_eq!(rest.count(), 2, "{judge:#?}");
        // What is taken is so whichever of its addresses is asked for.
        let listen = listen_on(&[5432]);
        let taken = lone.within(&listen);
        assert!(taken.len() == 4 && taken.iter().all(|line| line.ends_with(TAKEN)), "{taken:#?}");
        for slot in 1..=replicas {
            assert_eq!(within(&project, service, slot, ASK), judge, "{service}-{slot}");
            assert_eq!(within(&project, service, slot, &listen), taken, "{service}-{slot}");
            let named = within(&project, service, slot, "psql -h localhost -Atc 'SHOW test.replica'");
            assert_eq!(named, [slot.to_string()], "{service}-{slot}");
        }
    }
    // Who comes from elsewhere is refused by the kernel, or by the server that sees where they come from.
    let from = within(&project, "everywhere", 1, "hostname -i").concat();
    let ask = |host: &str| format!("psql -h {host} -c 'SELECT 1' 2>&1 || true");
    let refused = within(&project, "everywhere", 1, &ask("local")).concat();
    assert!(refused.contains("Connection refused"), "{refused}");
    let from_local = within(&project, "local", 1, "hostname -i").concat();
    let rejected = within(&project, "local", 1, &ask("everywhere")).concat();
    let reason = format!("pg_hba.conf rejects connection for host \"{from_local}\"");
    assert!(rejected.contains(&reason) && from != from_local, "{rejected}");
}

#[test]
fn the_only_postgres_reaches_itself_on_localhost() {
    each_reaches_itself(1);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn each_of_three_postgres_reaches_itself_on_localhost() {
    each_reaches_itself(3);
}
