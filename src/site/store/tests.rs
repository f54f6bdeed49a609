use super::*;

fn store() -> Arc<Store> {
    let conf: Redis = serde_json::from_str(r#"{ "url": "redis://127.0.0.1:6379", "wait": "5ms" }"#)
        .expect("a configuration");
    let secrets = Secrets {
        password: None,
        connector: None,
    };
    Store::new(conf, secrets)
}

/// Aim: a slow store that is also full stays slow, so that no flow waits for it again; a full one that becomes slow is
/// slow. Fails if an answer to what the edge writes by itself lets flows ask.
#[test]
fn full_does_not_end_slow() {
    let store = store();
    store.change(State::Ok, "a server".to_owned());
    for _ in 0..LATE {
        assert!(store.serves());
        store.waited(false);
    }
    assert!(!store.serves());
    let full = || store.judge::<()>(Err(StoreError::Full("no memory".to_owned())));
    assert!(full().is_err());
    assert!(!store.serves());
    assert_eq!(store.status().state, State::Slow);
    store.change(State::Ok, "it serves again".to_owned());
    assert!(full().is_err());
    assert!(store.serves(), "a full store still tells what it holds");
    store.late.store(0, Ordering::Relaxed);
    (0..LATE).for_each(|_| store.waited(false));
    assert_eq!(store.status().state, State::Slow);
}
