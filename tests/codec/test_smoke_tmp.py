import os, random
def test_basic(fd):
    c=fd.codec
    for masked in (True, False):
        enc=c.Encoder(masked=masked); dec=c.Decoder(masked=masked)
        for n in (0,1,5,125,126,4095,5000,65535,65536,300000):
            for head,data in ((0x82,os.urandom(n)),(0x81,"a"*n),(0x81,"é"*n),(0x81,"a€"*n),(0x81,"😀b"*n)):
                f=enc.frame(head,data)
                rnd=random.Random(n)
                i=0; out=None
                while i<len(f):
                    assert out is None
                    step=rnd.choice([1,3,100,5000,70000])
                    if rnd.random()<.5:
                        dec.feed(f[i:i+step]); i+=step
                    else:
                        with dec.get_buffer() as mv:
                            k=min(len(mv),step,len(f)-i); mv[:k]=f[i:i+k]
                        dec.buffer_updated(k); i+=k
                    out=dec.pull()
                assert out==data, (n,head,masked)
