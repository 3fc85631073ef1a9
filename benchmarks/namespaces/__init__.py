"""A sync between network namespaces, over lines with delay, jitter and loss, beside iperf3."""
