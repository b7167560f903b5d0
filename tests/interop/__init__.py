"""Tests with other programs: peers of other makes, proxies, a browser.

A far end echoes what it gets, and obeys commands: text messages that begin with "do ".

    do ping WORD         send a ping with this payload; when it is answered, send "pong WORD"
    do fragments A B C   send the message "ABC", each word a fragment of its own
    do close CODE WORD   close with this code and reason (1005: with an empty close frame)

So whatever is tried is written once (`exchanges`), for far ends of any make, clients and servers.
"""
