/** A picture that the page holds itself. Its address lives as long as it is shown. */

import { useEffect, useState } from "preact/hooks";

interface Props {
  blob: Blob;
  alt: string;
  class?: string;
}

export function BlobPicture({ blob, alt, class: name }: Props) {
  const [url, setUrl] = useState("");
  useEffect(() => {
    const made = URL.createObjectURL(blob);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [blob]);
  return url === "" ? <span class={name} /> : <img class={name} src={url} alt={alt} draggable={false} />;
}
