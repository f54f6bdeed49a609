//! Tests what an order leaves behind.

use super::*;

/// Aim: a certificate that came is a success, whatever fails after it. Fails if it is thrown away and ordered
/// again.
#[tokio::test]
async fn a_success_stays_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("push.pem");
    let job = Arc::new(Job {
        acme: serde_yaml::from_str("{ domains: [push.example] }").expect("a block"),
        challenge: Challenge::Http,
        file: file.clone(),
        seen: None,
        folder: Folder::at(dir.path().to_owned()),
        dir: dir.path().to_owned(),
        spread: Duration::ZERO,
        failures: 0,
        hurry: false,
        opened: Mutex::default(),
    });
    let lock = || job.folder.lock(&file).expect("ours").expect("free");
    let issued = Issued {
        from: 0,
        until: 1,
        names: Vec::new(),
        authority: String::new(),
    };
    let failed = end(&job, lock(), Err("planned by a test".into())).await;
    let series = failed.map(|_| ()).expect_err("it failed");
    assert_eq!((series.failures, series.pause_s > 50), (1, true));
    let got = || Ok(Outcome::Got(issued.clone(), false));
    assert!(matches!(
        end(&job, lock(), got()).await,
        Ok(Outcome::Got(..))
    ));
    assert_eq!(job.folder.series(&file), Ok(None), "removed");
    // It cannot be removed.
    std::fs::create_dir(file.with_extension("failed")).expect("a folder");
    assert!(matches!(
        end(&job, lock(), got()).await,
        Ok(Outcome::Got(..))
    ));
}
