"""What `shardman top` shows: asked by `feed`, laid out by `views`, kept on the terminal by `screen`."""
