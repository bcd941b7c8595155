"""What others would put in the Hub's place: nginx and HAProxy as plain proxies, and a gateway written for Node."""
