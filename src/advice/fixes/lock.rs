# use std::sync::Mutex;
# fn expensive() -> u64 { 1 }
# async fn update(state: &Mutex<Vec<u64>>) {
// Work first, lock last: the guard lives for one statement.
let value = expensive();
state.lock().unwrap().push(value);
# }
