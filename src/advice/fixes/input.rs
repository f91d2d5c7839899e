# fn start() -> tokio::sync::mpsc::Receiver<String> {
let (sender, lines) = tokio::sync::mpsc::channel(64);
std::thread::spawn(move || {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        if sender.blocking_send(line).is_err() {
            break;
        }
    }
});
# lines
# }
