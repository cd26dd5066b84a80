//! Commands in containers that run.

use std::{collections::BTreeMap, time::Duration};

use sameport::{
    engine::{Engine, EngineError, ExecOptions, LAST_LINES, Ran},
    spec::Hook,
};

use super::workbench::Workbench;

fn sh(line: &str) -> ExecOptions {
    ExecOptions { command: ["sh", "-c", line].map(str::to_owned).to_vec(), ..ExecOptions::default() }
}

#[tokio::test]
async fn a_command_is_waited_for_and_told_with_its_code_and_last_lines() {
    let bench = Workbench::new().await;
    let id = bench.shell("sleep 1000").await;
    let ran = bench.docker.run(&id, &sh("sleep 1; echo one; echo two; exit 3")).await.unwrap();
    assert_eq!(ran, Ran { code: 3, output: vec!["one".to_owned(), "two".to_owned()] });
    let error = bench.docker.run(&id, &sh("echo wrong >&2")).await.unwrap();
    assert_eq!(error, Ran { code: 0, output: vec!["wrong".to_owned()] });
    let many = bench.docker.run(&id, &sh("seq 1 1000")).await.unwrap();
    assert_eq!((many.code, many.output.len()), (0, LAST_LINES));
    assert_eq!(many.output.last().map(String::as_str), Some("1000"));
}

#[tokio::test]
async fn a_command_has_the_user_folder_rights_and_variables_that_it_is_given() {
    let bench = Workbench::new().await;
    let id = bench.shell("sleep 1000").await;
    let line = "id -u; pwd; echo $A-$PATH";
    let hook = Hook {
        command: ["sh", "-c", line].map(str::to_owned).to_vec(),
        user: Some("65534".to_owned()),
        privileged: false,
        working_dir: Some("/tmp".to_owned()),
        environment: BTreeMap::from([("A".to_owned(), Some("b c".to_owned()))]),
    };
    let given = bench.docker.run(&id, &ExecOptions::from(&hook)).await.unwrap().output;
    assert_eq!(given[..2], ["65534", "/tmp"]);
    assert!(given[2].starts_with("b c-/"), "{given:?}");
    let plain = Hook { user: None, working_dir: None, environment: BTreeMap::new(), ..hook };
    let own = bench.docker.run(&id, &ExecOptions::from(&plain)).await.unwrap().output;
    assert_eq!(own[..2], ["0", "/"]);
    assert!(own[2].starts_with("-/"), "{own:?}");

    let rights = ExecOptions { privileged: true, ..sh("grep CapEff /proc/self/status") };
    let all = bench.docker.run(&id, &rights).await.unwrap();
    let some = bench.docker.run(&id, &ExecOptions { privileged: false, ..rights }).await.unwrap();
    // An engine that itself lacks some of the rights cannot give them, and says so.
    let refused = all.code != 0 && all.output.concat().contains("unable to apply caps");
    assert!(refused || (all.code == 0 && all.output > some.output), "{all:?} {some:?}");
}

#[tokio::test]
async fn what_cannot_be_run_is_no_success() {
    let bench = Workbench::new().await;
    let id = bench.shell("sleep 1000").await;
    let missing = ExecOptions { command: vec!["/no/such/program".to_owned()], ..ExecOptions::default() };
    match bench.docker.run(&id, &missing).await {
        Ok(ran) => assert!(matches!(ran.code, 126 | 127), "{ran:?}"),
        Err(error) => assert!(error.to_string().contains("/no/such/program"), "{error}"),
    }
    bench.docker.kill(&id, "SIGKILL").await.unwrap();
    bench.ended(&id).await;
    let ended = bench.docker.run(&id, &sh("true")).await.unwrap_err();
    assert!(matches!(ended, EngineError::Conflict { .. }), "{ended:?}");
    bench.remove(&id).await;
    let gone = bench.docker.run(&id, &sh("true")).await.unwrap_err();
    assert!(matches!(gone, EngineError::Gone { .. }), "{gone:?}");
}

#[tokio::test]
async fn a_command_ends_with_its_container() {
    let bench = Workbench::new().await;
    let id = bench.shell("sleep 1000").await;
    let (docker, container) = (bench.docker.clone(), id.clone());
    let running =
        tokio::spawn(async move { docker.run(&container, &sh("echo begun > /tmp/begun; sleep 1000")).await });
    for _ in 0..600 {
        if bench.command.try_run(&["exec", &id.0, "cat", "/tmp/begun"]).is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    bench.docker.kill(&id, "SIGKILL").await.unwrap();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(60), running).await.unwrap().unwrap();
    assert!(ended.as_ref().is_ok_and(|ran| ran.code != 0) || ended.is_err(), "{ended:?}");
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed() {
    let bench = Workbench::new().await;
    let id = bench.shell("sleep 1000").await;
    let begun = std::time::Instant::now();
    let command = ExecOptions { limit: Some(Duration::from_secs(1)), ..sh("echo begun; exec sleep 55") };
    let killed = bench.docker.run(&id, &command).await.unwrap();
    assert_eq!((killed.code, killed.output), (137, vec!["begun".to_owned()]));
    assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", begun.elapsed());
}
