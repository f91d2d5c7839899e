# fn start() {
// Lines go to a thread; with `tracing`, `tracing_appender::non_blocking` does this.
let (lines, queue) = std::sync::mpsc::sync_channel::<String>(1024);
std::thread::spawn(move || queue.iter().for_each(|line| println!("{line}")));
let _ = lines.try_send("done".to_owned());
# }
